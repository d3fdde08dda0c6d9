# SPDX-License-Identifier: MIT
"""The Python binding with torch: tensors without copies, masks in a PyTorch loop."""
import unittest

import atmsae
import mask_in_pytorch
import numpy as np
import torch
from atm_torch import MASKED, Atm


class Torch(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.context = atmsae.Context(threads=1)

    def test_rows_of_every_type(self):
        model = atmsae.Model(self.context, d_in=16, d_sae=32, k=3, activation="topk")
        wide = torch.randn(64, 40, requires_grad=True)
        for kind in (torch.float32, torch.float16, torch.bfloat16):
            x = wide.to(kind)[:, 7:23]
            expected = model.encode(x.detach().float().contiguous().numpy()).dense()
            np.testing.assert_array_equal(model.encode(x).dense(), expected)
        with self.assertRaises(ValueError):
            model.encode(wide[:, :16].T)
        with self.assertRaises(ValueError):
            model.encode(torch.zeros(4, 16, dtype=torch.int32))
        out = torch.empty(64, 16)
        model.decode(model.encode(wide[:, :16]), out=out)
        self.assertTrue(out.isfinite().all())

    def test_lent_tensors_share_memory(self):
        model = atmsae.Model(self.context, d_in=16, d_sae=32, k=3)
        view = model["W_dec"]
        tensor = atmsae.tensor(view)
        self.assertEqual(tensor.data_ptr(), view.ctypes.data)
        model["W_dec"] = W = torch.nn.functional.normalize(torch.randn(32, 16), dim=1)
        self.assertTrue(torch.equal(tensor, W))

    def test_masks_are_the_librarys_memory(self):
        atm = Atm(self.context, 64, masker=dict(effect="hard", warmup_steps=0, r=5, seed=3))
        atm.mask(0)
        atm.observe(torch.rand(8, 64).relu(), torch.zeros(8, 16), torch.randn(64, 16))
        masked = atm.mask(1)
        self.assertEqual(masked.dtype, torch.bool)
        mask = atmsae.structs["mask"].from_address(atmsae._lib.atmsae_masker_mask(atm.masker))
        self.assertEqual(masked.data_ptr(), mask.masked)
        self.assertTrue(0 < int(masked.sum()) < 64)
        p = atmsae.tensor(atm.masker.p)
        self.assertEqual(p.data_ptr(), atm.masker.p.ctypes.data)
        self.assertTrue((p[masked] > 0).all())

    def test_sums_are_what_the_header_says(self):
        n, F, d = 7, 5, 4
        f, e, W = torch.rand(n, F).sub(0.4).relu(), torch.randn(n, d), torch.randn(F, d)
        atm = Atm(self.context, F, masker=dict(effect="hard"))
        atm.mask(0)
        seen = {}
        atm.tracker.observe = lambda **sums: seen.update({k: v.numpy().copy() for k, v in sums.items()})
        atm.masker.update = lambda importance: None
        atm.observe(f, e, W)
        f, e, W = f.double().numpy(), e.double().numpy(), W.double().numpy()
        for i in range(F):
            norm = np.sqrt(W[i] @ W[i])
            # contribution: the rise of the squared error if the latent were removed
            rise = sum((e[r] + f[r, i] * W[i]) @ (e[r] + f[r, i] * W[i]) - e[r] @ e[r] for r in range(n))
            expected = dict(rows=n, magnitude=f[:, i].sum() * norm, frequency=(f[:, i] > 0).sum(), contribution=rise)
            for name, value in expected.items():
                self.assertAlmostEqual(seen[name][i], value, places=4, msg=name)

    def test_the_loop_trains_with_masks(self):
        mask_in_pytorch.STEPS = 400
        atm = Atm(self.context, mask_in_pytorch.D_SAE, 400, masker=dict(effect="hard", r=0.5))
        masks = []
        draw = atm.mask
        atm.mask = lambda step: masks.append(draw(step).clone()) or atm.masked
        fvu, missed = mask_in_pytorch.train(atm)
        self.assertLess(fvu, 0.5)
        masks = torch.stack(masks)
        self.assertEqual(int(masks[:40].sum()), 0)  # warm-up: 10 % of the steps
        self.assertGreater(int(masks[40:320].sum()), 400)
        self.assertEqual(int(masks[381:].sum()), 0)  # after the cool-down

    def test_the_second_loss_hides_entries_with_p(self):
        atm = Atm(self.context, 64, masker=dict(warmup_steps=0, r=2, seed=3))
        f = torch.rand(4000, 64).sub(0.4).relu()
        self.assertEqual(int(atm.hidden(0, f).sum()), 0)  # nothing is known yet
        atm.observe(f * torch.rand(64), torch.zeros(4000, 16), torch.randn(64, 16))
        hidden, p = atm.hidden(1, f), atmsae.tensor(atm.masker.p).clone()
        self.assertGreater(float(p.max()), 0.2)
        self.assertLess(float((hidden.double().mean(0) - p).abs().max()), 0.05)
        self.assertEqual(int(hidden[:, p == 0].sum()), 0)
        seen = {}
        atm.tracker.observe = lambda **sums: seen.update(sums)
        atm.observe(f, torch.zeros(4000, 16), torch.randn(64, 16))
        self.assertTrue((seen["rows"] == 4000).all())  # all latents are observed in all rows

    def test_mistakes_are_told(self):
        for name in ("per_row", "alpha"):
            with self.assertRaisesRegex(ValueError, name):
                Atm(self.context, 64, masker={name: 1})
        with self.assertRaisesRegex(RuntimeError, "hidden"):
            Atm(self.context, 64).mask(0)
        atm = Atm(self.context, 64, masker=dict(effect="hard"))
        with self.assertRaisesRegex(RuntimeError, "mask"):
            atm.hidden(0, torch.rand(8, 64))
        f, e, W = torch.rand(8, 64), torch.randn(8, 16), torch.randn(64, 16)
        with self.assertRaisesRegex(RuntimeError, "before observe"):
            atm.observe(f, e, W)
        atm.mask(0)
        for bad in ((f[None], e, W), (f, e, W.T), (f[:, :32], e, W), (f, e[:4], W)):
            with self.assertRaisesRegex(ValueError, "expected"):
                atm.observe(*bad)
        atm.observe((300 * f).half(), (300 * e).half(), W.half())  # whose products float16 cannot hold

    def test_the_loop_trains_with_a_second_loss(self):
        mask_in_pytorch.STEPS = 400
        atm = Atm(self.context, mask_in_pytorch.D_SAE, 400)
        fvu, missed = mask_in_pytorch.train(atm)
        self.assertLess(fvu, 0.5)

    def test_masked_latents_get_no_gradient(self):
        sae = mask_in_pytorch.SAE()
        masked = torch.rand(mask_in_pytorch.D_SAE) < 0.5
        x = mask_in_pytorch.features(64) @ mask_in_pytorch.directions
        f, x_hat = sae(x, masked)
        (x - x_hat).pow(2).sum().backward()
        self.assertEqual(float(f[:, masked].detach().abs().sum()), 0)
        self.assertEqual(float(sae.W_enc.grad[:, masked].abs().sum() + sae.W_dec.grad[masked].abs().sum()), 0)
        self.assertGreater(float(sae.W_dec.grad[~masked].abs().sum()), 0)
        self.assertTrue(torch.isfinite(torch.tensor(MASKED)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    unittest.main()

# SPDX-License-Identifier: MIT
"""The library's masks inside SAELens's training SAEs: without masks nothing changes, with them a second
reconstruction is learnt from, and what is saved is an ordinary model that SAELens and the library both read."""
import tempfile
import unittest

import atmsae
import mask_in_saelens
import numpy as np
import sae_lens
import torch
from atm_torch import Atm
from mask_in_pytorch import D_SAE, directions, features
from sae_lens.saes.sae import TrainStepInput


def step_input(x, step=0, dead=None):
    return TrainStepInput(x, {"l1": 1.0, "l0": 1.0}, dead, step, False)


class SAELens(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.context = atmsae.Context(threads=1)
        self.x = features(256) @ directions

    def test_without_masks_it_is_the_same_class(self):
        config = dict(d_in=64, d_sae=D_SAE, k=3, device="cpu")
        torch.manual_seed(1)
        ours = mask_in_saelens.AtmBatchTopK(sae_lens.BatchTopKTrainingSAEConfig(**config))
        torch.manual_seed(1)
        theirs = sae_lens.BatchTopKTrainingSAE(sae_lens.BatchTopKTrainingSAEConfig(**config))
        a, b = (sae.training_forward_pass(step_input(self.x)) for sae in (ours, theirs))
        self.assertTrue(torch.equal(a.loss, b.loss) and torch.equal(a.feature_acts, b.feature_acts))

    def test_a_second_loss_in_every_architecture(self):
        for name in ("TopK", "BatchTopK", "MatryoshkaBatchTopK", "Standard", "JumpReLU"):
            with self.subTest(name):
                base, config = getattr(sae_lens, name + "TrainingSAE"), getattr(sae_lens, name + "TrainingSAEConfig")
                settings = dict(d_in=64, d_sae=D_SAE, device="cpu")
                if "TopK" in name:
                    settings["k"] = 3
                if name.startswith("Matryoshka"):
                    settings["matryoshka_widths"] = [32, D_SAE]
                sae = type("Masked" + name, (mask_in_saelens.AtmTraining, base), {})(config(**settings))
                plain = sae.training_forward_pass(step_input(self.x))
                sae.atm = Atm(self.context, D_SAE, masker=dict(warmup_steps=0, r=5.0))
                first = sae.training_forward_pass(step_input(self.x, 0))  # nothing is known yet, nothing masked
                self.assertTrue(torch.equal(first.feature_acts, plain.feature_acts))
                mse = (self.x - first.sae_out).pow(2).sum(-1).mean()
                torch.testing.assert_close(first.losses["masked_loss"], 0.3 * mse)
                torch.testing.assert_close(first.loss, plain.loss + 0.3 * mse)
                draws, hidden = [], sae.atm.hidden
                sae.atm.hidden = lambda step, f: draws.append(hidden(step, f)) or draws[-1]
                output = sae.training_forward_pass(step_input(self.x, 1))
                self.assertTrue(0 < int((draws[0] & (output.feature_acts > 0)).sum()))
                self.assertTrue(torch.equal(output.feature_acts, plain.feature_acts))  # masked latents fire as ever
                rest = sae.decode(output.feature_acts * ~draws[0])
                torch.testing.assert_close(output.losses["masked_loss"], 0.3 * (self.x - rest).pow(2).sum(-1).mean())
                output.loss.backward()
                self.assertTrue(torch.isfinite(output.loss) and float(sae.W_enc.grad.abs().sum()) > 0)
                sae.atm = None

    def test_trained_by_saelens_read_by_both(self):
        sae = mask_in_saelens.train(lambda n: features(n) @ directions, D_SAE, k=3, steps=100, batch=256)
        with tempfile.TemporaryDirectory() as folder:
            sae.save_inference_model(folder)
            theirs = sae_lens.SAE.load_from_disk(folder, device="cpu")
            ours = atmsae.Model.load(self.context, folder)
            with torch.no_grad():
                expected = theirs(self.x).numpy()
            np.testing.assert_allclose(ours.decode(ours.encode(self.x)), expected, atol=1e-4)


if __name__ == "__main__":
    torch.set_num_threads(1)
    unittest.main()

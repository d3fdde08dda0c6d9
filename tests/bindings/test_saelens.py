# SPDX-License-Identifier: MIT
"""The library's masks inside SAELens's training SAEs: without masks nothing changes, with them masked
latents sit out, and what is saved is an ordinary model that SAELens and the library both read."""
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

    def test_masked_latents_sit_out_of_every_architecture(self):
        for name in ("TopK", "BatchTopK", "MatryoshkaBatchTopK", "Standard", "JumpReLU"):
            with self.subTest(name):
                base, config = getattr(sae_lens, name + "TrainingSAE"), getattr(sae_lens, name + "TrainingSAEConfig")
                settings = dict(d_in=64, d_sae=D_SAE, device="cpu")
                if "TopK" in name:
                    settings["k"] = 3
                if name.startswith("Matryoshka"):
                    settings["matryoshka_widths"] = [32, D_SAE]
                sae = type("Masked" + name, (mask_in_saelens.AtmTraining, base), {})(config(**settings))
                sae.atm = Atm(self.context, D_SAE, masker=dict(warmup_steps=0, r=5.0))
                sae.training_forward_pass(step_input(self.x, 0))  # gives the tracker something to go by
                dead = torch.ones(D_SAE, dtype=torch.bool)
                output = sae.training_forward_pass(step_input(self.x, 1, dead))
                output.loss.backward()
                masked = sae.atm.masked.clone()
                self.assertTrue(0 < int(masked.sum()) < D_SAE)
                self.assertEqual(output.metrics["masked_latents"], int(masked.sum()))
                self.assertEqual(float(output.feature_acts[:, masked].detach().abs().sum()), 0)
                self.assertTrue(torch.isfinite(output.loss))
                # (JumpReLU's and Standard's penalties reach W_dec of silent latents with 0 as well.)
                self.assertEqual(float(sae.W_enc.grad[:, masked].abs().sum()), 0)
                self.assertGreater(float(sae.W_enc.grad[:, ~masked].abs().sum()), 0)
                # No mask at inference, and none left behind.
                hooks = sae.hook_sae_acts_pre._forward_hooks
                self.assertEqual(len(hooks), 0)
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

# SPDX-License-Identifier: MIT
"""The library's masks inside SAELens: a mix-in for its training SAEs, run by its own trainer.

AtmTraining goes before any of TopKTrainingSAE, BatchTopKTrainingSAE, StandardTrainingSAE and
MatryoshkaBatchTopKTrainingSAE. It masks pre-activations through SAELens's own hook point, in training
steps only: what is saved is an ordinary SAELens model.
"""
import dataclasses

import atmsae
import torch
from atm_torch import MASKED, Atm
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer


class AtmTraining:
    atm = None  # an Atm; without one this is the class that comes after

    def training_forward_pass(self, step_input):
        if self.atm is None:
            return super().training_forward_pass(step_input)
        masked = self.atm.mask(step_input.n_training_steps)
        dead = step_input.dead_neuron_mask
        if dead is not None:  # masked latents take no part in the auxiliary loss either
            step_input = dataclasses.replace(step_input, dead_neuron_mask=dead & ~masked)
        hook = self.hook_sae_acts_pre.register_forward_hook(lambda module, args, pre: pre.masked_fill(masked, MASKED))
        try:
            output = super().training_forward_pass(step_input)
        finally:
            hook.remove()
        W_dec = self.W_dec
        if getattr(self.cfg, "rescale_acts_by_decoder_norm", False):  # latents already carry the norms
            W_dec = W_dec / W_dec.norm(dim=1, keepdim=True)
        self.atm.observe(output.feature_acts, output.sae_in - output.sae_out, W_dec)
        output.metrics["masked_latents"] = int(masked.sum())
        return output


class AtmBatchTopK(AtmTraining, BatchTopKTrainingSAE):
    pass


def train(rows, d_sae, k, steps, batch, masks=True):
    """rows: a function of a batch size giving rows [n, d]."""
    d_in = rows(1).shape[1]
    sae = AtmBatchTopK(BatchTopKTrainingSAEConfig(d_in=d_in, d_sae=d_sae, k=k, device="cpu"))
    config = SAETrainerConfig(
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        lr=1e-3,
        lr_end=0.0,
        logger=LoggingConfig(log_to_wandb=False),
    )
    with atmsae.Context() as context:
        sae.atm = Atm(context, d_sae, steps, masker=dict(r=0.5)) if masks else None
        SAETrainer(config, sae, iter(lambda: rows(batch), None)).fit()
        sae.atm = None
    return sae


if __name__ == "__main__":
    from mask_in_pytorch import D_SAE, directions, features, score

    for masks in (False, True):
        torch.manual_seed(1)
        sae = train(lambda n: features(n) @ directions, D_SAE, k=3, steps=1500, batch=512, masks=masks)
        fvu, missed = score(sae.W_dec, lambda x: (f := sae.encode(x), sae.decode(f)))
        print(f"{'with' if masks else 'without'} masks: FVU {fvu:.3f}, parent latent off in {100 * missed:.1f} % of its rows")
    sae.save_inference_model("saelens-sae")  # an ordinary SAELens folder

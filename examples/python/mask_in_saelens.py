# SPDX-License-Identifier: MIT
"""The library's masks inside SAELens: a mix-in for its training SAEs, run by its own trainer.

AtmTraining goes before any of SAELens's training SAEs. It adds a second reconstruction, without the masked latents, to the
loss, in training steps only: what is saved is an ordinary SAELens model.
"""
import atmsae
import torch
from atm_torch import Atm
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer


class AtmTraining:
    atm = None  # an Atm; without one this is the class that comes after
    alpha = 0.3

    def training_forward_pass(self, step_input):
        output = super().training_forward_pass(step_input)
        if self.atm is None:
            return output
        f = output.feature_acts
        hidden = self.atm.hidden(step_input.n_training_steps, f)
        without = step_input.sae_in - self.decode(f * ~hidden)
        output.losses["masked_loss"] = self.alpha * without.pow(2).sum(-1).mean()
        output.loss = output.loss + output.losses["masked_loss"]
        W_dec = self.W_dec
        if getattr(self.cfg, "rescale_acts_by_decoder_norm", False):  # latents already carry the norms
            W_dec = W_dec / W_dec.norm(dim=1, keepdim=True)
        self.atm.observe(f, output.sae_in - output.sae_out, W_dec)
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
        sae.atm = Atm(context, d_sae, steps) if masks else None
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

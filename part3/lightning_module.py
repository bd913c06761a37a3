"""The training of a GPT as a LightningModule."""

from __future__ import annotations

import argparse
import math

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset import Batches, TextDataset, steps_per_epoch, train_loader, val_loader
from generate import generate
from gpt import GPT
from inputs import InputError, completed
from run_folder import config_of

LOG_EVERY_N_STEPS = 50


class NotFiniteError(InputError):
    """The loss became NaN or infinite."""


class GPTLightningModule(pl.LightningModule):
    """Trains a GPT to predict each next token.

    What Lightning calls an epoch is a round of `val_every_n_steps` steps with a validation at its end; passes over the
    text, which are long, may begin and end within one.

    Args:
        config: the flags of `train.py`; a flag that is missing has its default.
        model: a `GPT`.
        train_dataset: what to train on.
        val_dataset: what to validate on; without it, there is no validation.
    """

    def __init__(
        self,
        config: argparse.Namespace,
        model: GPT,
        train_dataset: TextDataset,
        val_dataset: TextDataset | None = None,
    ):
        super().__init__()
        self.config = completed(config)
        self.model = model
        self.train_dataset, self.val_dataset = train_dataset, val_dataset
        self.results: dict[str, float] = {}  # of the last round: losses, accuracies, learning rate
        self._window, self._round, self._val = _Means(), _Means(), _Means()
        self._bad_step = torch.tensor(torch.inf)

    def forward(self, idx: Tensor) -> Tensor:
        """Logits [B, T, vocab_size] of tokens [B, T]."""
        return self.model(idx)

    def configure_optimizers(self):
        # A loss scaler, which 16-mixed has, must take its factor out of the gradients before they are clipped.
        optimizer = self.model.configure_optimizers(self.config, fused=self.config.precision != "16-mixed")
        if not self.config.warmup_steps and self.config.lr_schedule == "constant":
            return optimizer
        num_steps = planned_steps(self.config, len(self.train_dataset), self.trainer.world_size)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, num_steps, self.config))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Lightning's own refuses every fused optimizer under mixed precision, also without a loss scaler."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def train_dataloader(self):
        """The batches of the next round.

        A trainer that reloads them before each round ends after the planned steps; one that does not goes on with the
        windows that come next, round after round.
        """
        trainer, world_size = self.trainer, self.trainer.world_size
        left = planned_steps(self.config, len(self.train_dataset), world_size) - trainer.global_step
        batches = Batches(len(self.train_dataset), self.config.train_batch_size, lambda: trainer.global_step,
                          min(left, self.config.val_every_n_steps), self.config.seed, trainer.global_rank,
                          world_size)  # fmt: skip
        on_cuda = trainer.strategy.root_device.type == "cuda"
        return train_loader(self.train_dataset, batches, self.config.num_workers, pin_memory=on_cuda)

    def val_dataloader(self):
        return [] if self.val_dataset is None else val_loader(self.val_dataset, self.config.train_batch_size)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss, hits = self._step(batch)
        for means in (self._window, self._round):
            means.add(loss, hits, batch[1].numel())
        self._note_bad_step(loss.detach())
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx: int) -> None:
        step = self.trainer.global_step
        if step % LOG_EVERY_N_STEPS == 0 or self.trainer.is_last_batch:
            self.check_finite()
            loss, accuracy = self._window.read(self.trainer)
            self._log({"train_loss": loss, "train_acc": accuracy, "learning_rate": self._rate()}, step)
            self.log("train_loss", loss, logger=False, prog_bar=True)
        if self.trainer.is_last_batch:
            loss, accuracy = self._round.read(self.trainer)
            self.results = {"train_loss": loss, "train_acc": accuracy, "learning_rate": self._rate()}

    def check_finite(self, batch: tuple[Tensor, Tensor] | None = None) -> None:
        """Raises NotFiniteError where the loss of a step so far is NaN or infinite, or where that of the next one would
        be on the given batch. To be called in all processes, which stop together."""
        if batch is not None:
            was_training = self.model.training
            with torch.no_grad():
                self.model.eval()
                self._note_bad_step(self._step(batch)[0])
                self.model.train(was_training)
        bad = self.trainer.strategy.reduce(self._bad_step, reduce_op="min").item()
        if bad != torch.inf:
            raise self._not_finite("loss", int(bad))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._val.add(*self._step(batch), batch[1].numel())

    def on_validation_epoch_end(self) -> None:
        loss, accuracy = self._val.read(self.trainer)
        if not math.isfinite(loss):
            raise self._not_finite("validation loss", self.trainer.global_step)
        tokens_per_character = len(self.val_dataset.data) / self.val_dataset.num_characters
        metrics = {"val_loss": loss, "val_acc": accuracy, "val_bpc": loss * tokens_per_character / math.log(2)}
        self.results.update(metrics)
        self._log(metrics, self.trainer.global_step)
        self.log("val_loss", loss, logger=False, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["gpt_config"] = config_of(self.model)
        checkpoint["vocabulary"] = self.train_dataset.vocabulary.state()

    def generate(
        self,
        prompt: str = "",
        num_samples: int = 5,
        n_steps: int = 30,
        do_sample: bool = True,
        top_k: int | None = None,
        verbose: bool = True,
    ) -> list[str]:
        """Texts that continue a prompt; printed where `verbose`. The model is left in its mode, and the random numbers
        of the training are left alone."""
        return generate(self.model, self.config.model_type, prompt, num_samples, n_steps, do_sample, top_k,
                        device=self.device, verbose=verbose, vocabulary=self.train_dataset.vocabulary,
                        generator=torch.Generator(self.device).manual_seed(self.config.seed))  # fmt: skip

    def _step(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean cross entropy in nats, and how many tokens had the highest logit."""
        x, y = batch
        logits = self(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(end_dim=1)  # (B*T, V)
        return F.cross_entropy(logits, y.flatten()), (logits.detach().argmax(dim=-1) == y.flatten()).sum()

    def _note_bad_step(self, loss: Tensor) -> None:
        """Keep, on the device, the first step whose loss is not finite; in float32, where its number is exact."""
        step = torch.full_like(loss, self.trainer.global_step + 1, dtype=torch.float32)
        step = step.masked_fill(loss.isfinite(), torch.inf)
        self._bad_step = torch.minimum(self._bad_step.to(step), step)

    def _rate(self) -> float:
        return self.trainer.optimizers[0].param_groups[0]["lr"]

    def _log(self, metrics: dict[str, float], step: int) -> None:
        if self.logger is not None:
            self.logger.log_metrics(metrics, step)

    def _not_finite(self, loss: str, step: int) -> NotFiniteError:
        kept = getattr(self.trainer.checkpoint_callback, "kept_steps", 0)
        state = f"the checkpoint after step {kept} is kept" if kept else "there is no checkpoint yet"
        return NotFiniteError(
            f"the {loss} is not finite at step {step}: lower --learning_rate or raise --precision; {state}"
        )


class _Means:
    """Sums on the device, where nothing has to wait for them, of loss and correct tokens, until they are read."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.sums, self.count = torch.zeros(2, dtype=torch.float64), 0

    def add(self, loss: Tensor, hits: Tensor, count: int) -> None:
        added = torch.stack([loss.detach() * count, hits.to(loss.dtype)])
        if added.device.type == "mps":  # which has no float64
            self.sums = self.sums.float()
        self.sums = self.sums.to(added.device) + added
        self.count += count

    def read(self, trainer: pl.Trainer) -> tuple[float, float]:
        """Mean loss and accuracy over all processes; begins anew."""
        both = torch.cat([self.sums, self.sums.new_tensor([self.count])])
        loss, hits, count = trainer.strategy.reduce(both, reduce_op="sum").tolist()
        self.reset()
        return loss / max(count, 1), hits / max(count, 1)


def planned_steps(config: argparse.Namespace, num_windows: int, world_size: int) -> int:
    """Steps of the whole training: `num_epochs` passes, or `max_steps` where that is less."""
    steps = config.num_epochs * steps_per_epoch(num_windows, config.train_batch_size * world_size)
    return min(steps, config.max_steps or steps)


def rate_at(step: int, num_steps: int, config: argparse.Namespace) -> float:
    """Learning rate of a step, as a multiple of `learning_rate`: it rises linearly over `warmup_steps`, and then stays,
    or falls along half a cosine to `min_learning_rate` (Loshchilov and Hutter, 2017).

    Args:
        step: 0 for the first.
        num_steps: of the whole training.
        config: the flags.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return 1.0
    least = config.min_learning_rate / config.learning_rate
    progress = min(1.0, (step - config.warmup_steps) / max(1, num_steps - 1 - config.warmup_steps))
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * progress))

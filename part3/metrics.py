"""Means of loss and accuracy over many steps, and their names in TensorBoard."""

import math

import pytorch_lightning as pl
import torch
from torch import Tensor

LOG_EVERY_N_STEPS = 50


class TokenMeans:
    """Mean loss and accuracy over all tokens since the last reading and, with several processes, over the tokens of
    all. The sums stay on the device of the losses, so that no step waits for them."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.sums, self.count = None, 0

    def add(self, sums: Tensor, count: int) -> None:
        """Add a batch: its summed loss and number of correct predictions, [2], and its number of tokens."""
        if self.sums is None:  # no zeros to begin with: their copy to the device would wait for it
            self.sums = sums.float() if sums.device.type == "mps" else sums.double()  # Apple's GPUs have no float64
        else:
            self.sums = self.sums + sums
        self.count += count

    def read(self, trainer: pl.Trainer) -> tuple[float, float]:
        """Mean loss and accuracy over all processes; resets the sums."""
        sums = torch.zeros(2, device=trainer.strategy.root_device) if self.sums is None else self.sums
        both = torch.cat([sums, sums.new_tensor([self.count])])
        loss, hits, count = trainer.strategy.reduce(both, reduce_op="sum").tolist()
        self.reset()
        return loss / max(count, 1), hits / max(count, 1)


class TokenMeansModule(pl.LightningModule):
    """A LightningModule that logs mean loss and accuracy: of the training every LOG_EVERY_N_STEPS steps, and of the
    validation. Its steps call `self.add_tokens`.

    Attributes:
        results: losses and accuracies of the last round and validation, and the learning rate.
        shown_loss: the last training loss that was logged, for the progress bar; None before.
        tokens_per_character: of the validation text, for bits per character.
    """

    tokens_per_character = 1.0

    def __init__(self):
        super().__init__()
        self.results: dict[str, float] = {}
        self.shown_loss: float | None = None
        self._window, self._round, self._val = TokenMeans(), TokenMeans(), TokenMeans()

    def add_tokens(self, mode: str, loss: Tensor, hits: Tensor, count: int) -> None:
        """Add a batch to the means of "train" or "val": mean loss, correct predictions, number of tokens."""
        sums = torch.stack([loss.detach() * count, hits.to(loss.dtype)])
        for means in (self._window, self._round) if mode == "train" else (self._val,):
            means.add(sums, count)

    def on_train_batch_end(self, outputs, batch, batch_idx: int) -> None:
        step, rate = self.trainer.global_step, self.trainer.optimizers[0].param_groups[0]["lr"]
        if step % LOG_EVERY_N_STEPS == 0 or self.trainer.is_last_batch:
            loss, accuracy = self._window.read(self.trainer)
            self._log({"train_loss": loss, "train_acc": accuracy, "learning_rate": rate}, step)
            self.log("train_loss", loss, logger=False)  # for the bar, Lightning would read it from the GPU in each step
            self.shown_loss = loss
        if self.trainer.is_last_batch:
            loss, accuracy = self._round.read(self.trainer)
            self.results = {"train_loss": loss, "train_acc": accuracy, "learning_rate": rate}

    def on_validation_epoch_end(self) -> None:
        loss, accuracy = self._val.read(self.trainer)
        bits_per_character = loss * self.tokens_per_character / math.log(2)
        metrics = {"val_loss": loss, "val_acc": accuracy, "val_bpc": bits_per_character}
        self.results.update(metrics)
        if math.isfinite(loss):  # else the training stops
            self._log(metrics, self.trainer.global_step)
            self.log("val_loss", loss, logger=False, prog_bar=True)

    def _log(self, metrics: dict[str, float], step: int) -> None:
        if self.logger is not None:
            self.logger.log_metrics(metrics, step)

"""Means of the losses over an epoch, and their names in TensorBoard."""

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics import Metric

LOSSES = ("reconstruction_loss", "regularization_loss", "ELBO", "bpd")


class ImageMeans(Metric):
    """Means of several losses over all images of an epoch and, with several processes, over the images of all.

    The sums stay on the device of the losses, so that no step waits for them.

    Args:
        num_losses: number of losses.
    """

    def __init__(self, num_losses: int):
        super().__init__()
        self.add_state("total", torch.zeros(num_losses), dist_reduce_fx="sum")
        self.add_state("num_images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, losses: Tensor, num_images: int) -> None:
        """Add the losses of a batch, [num_losses], which are means over its images."""
        self.total = self.total + num_images * losses
        self.num_images = self.num_images + num_images

    def compute(self) -> Tensor:
        """The means, [num_losses]."""
        return self.total / self.num_images


class EpochMeansModule(pl.LightningModule):
    """A LightningModule that logs the means of its LOSSES after each pass over the training, validation or test set.

    A step calls `self.add_losses`. The tags are `train_bpd`, `val_bpd`, `test_bpd` and so on; their steps in
    TensorBoard are epochs.
    """

    def __init__(self):
        super().__init__()
        self.train_means, self.val_means, self.test_means = (ImageMeans(len(LOSSES)) for _ in range(3))

    def add_losses(self, mode: str, losses: tuple[Tensor, ...], num_images: int) -> None:
        """Add the LOSSES of a batch, scalars, to the means of "train", "val" or "test"."""
        getattr(self, f"{mode}_means").update(torch.stack(losses).detach(), num_images)

    def on_train_epoch_start(self) -> None:
        self.train_means.reset()

    def on_validation_epoch_start(self) -> None:
        self.val_means.reset()

    def on_test_epoch_start(self) -> None:
        self.test_means.reset()

    def on_train_batch_end(self, outputs, batch, batch_idx: int) -> None:
        if self.trainer.is_last_batch:  # in `on_train_epoch_end`, other callbacks would not see the means yet
            self._log_means("train", epoch=self.current_epoch + 1)

    def on_validation_epoch_end(self) -> None:
        self._log_means("val", epoch=self.current_epoch + 1)

    def on_test_epoch_end(self) -> None:
        self._log_means("test", epoch=self.current_epoch)

    def _log_means(self, mode: str, epoch: int) -> None:
        means = getattr(self, f"{mode}_means").compute()
        metrics = {f"{mode}_{name}": mean for name, mean in zip(LOSSES, means, strict=True)}
        logged_here = mode == "train"  # Lightning would log them after the checkpoint that counts this epoch
        if logged_here and self.logger is not None:
            self.logger.log_metrics({name: mean.item() for name, mean in metrics.items()}, step=epoch)
        metrics["step"] = float(epoch)  # Lightning takes the entry `step` as the place on the horizontal axis
        for name, value in metrics.items():
            self.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1,
                     prog_bar=name.endswith("_bpd"), logger=not logged_here)  # fmt: skip

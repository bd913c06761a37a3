"""The VAE as a LightningModule, and its training (questions 1.7 to 1.9)."""

from args import LAST, complete_args, parse_args

if __name__ == "__main__":
    ARGS = parse_args()  # first, since importing PyTorch takes seconds

import argparse
import contextlib
import os
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from callbacks import AtomicCheckpointIO, BestAndLast, RunRecord, SeedEveryEpoch
from cnn_encoder_decoder import CNNDecoder, CNNEncoder
from evaluation import write_results
from mnist import load_data
from pictures import sample_grid, write_picture
from run import InputError, cluster_environment, open_run, read_checkpoint, run_command
from utils import KLD, elbo_to_bpd, reconstruction_loss, sample_reparameterize

WANTED = ("state_dict", "optimizer_states", "hyper_parameters", "flags", "epoch", "callbacks")  # in a checkpoint


class VAE(pl.LightningModule):
    """Variational autoencoder of images with 16 grey values (Kingma and Welling, 2014).

    Args:
        num_filters: channels of the first convolution.
        z_dim: dimensions of the latent space.
        lr: learning rate of Adam.
        lr_schedule: "constant"; or "one-cycle" (Smith and Topin, 2018), which ends after the trainer's epochs.
    """

    recorded = False  # whether `RunRecord` writes the losses of this training into TensorBoard

    def __init__(self, num_filters: int, z_dim: int, lr: float, lr_schedule: str = "constant"):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = CNNEncoder(num_filters=num_filters, z_dim=z_dim)
        self.decoder = CNNDecoder(num_filters=num_filters, z_dim=z_dim)

    def forward(self, imgs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One-sample estimate of the negative evidence lower bound.

        Args:
            imgs: long [B, 1, 28, 28] with values 0 .. 15.

        Returns:
            Three scalars: reconstruction loss and regularisation loss, each in nats, summed over the dimensions of an
            image and averaged over the batch, and their sum in bits per dimension.
        """
        mean, log_std = self.encoder(imgs)  # (B, z_dim)
        z = sample_reparameterize(mean, log_std.exp(), validate_args=False)  # (B, z_dim)
        L_rec = reconstruction_loss(self.decoder(z), imgs).mean()
        L_reg = KLD(mean, log_std).mean()
        return L_rec, L_reg, elbo_to_bpd(L_rec + L_reg, imgs.shape)

    @torch.no_grad()
    def sample(self, batch_size: int) -> Tensor:
        """Draw z from the prior and every pixel from its categorical distribution.

        Returns:
            long [batch_size, 1, 28, 28] with values 0 .. 15.
        """
        z = torch.randn(batch_size, self.hparams.z_dim, device=self.device, dtype=self.dtype)
        probs = self.decoder(z).float().softmax(dim=1).permute(0, 2, 3, 1)  # (B, 28, 28, 16)
        pixels = torch.multinomial(probs.flatten(end_dim=-2), num_samples=1)  # (B*28*28, 1)
        return pixels.view(probs.shape[:-1]).unsqueeze(1)  # (B, 1, 28, 28)

    def configure_optimizers(self) -> torch.optim.Optimizer | dict:
        if self.hparams.lr_schedule == "constant":
            return torch.optim.Adam(self.parameters(), lr=self.hparams.lr, fused=True)
        optimizer = torch.optim.Adam(self.parameters(), betas=(0.9, 0.99), fused=True)
        schedule = OneCycleLR(optimizer, 4 * self.hparams.lr, self.trainer.estimated_stepping_batches, pct_start=0.15,
                              div_factor=10, final_div_factor=100, cycle_momentum=False)  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        L_rec, L_reg, bpd = self(batch[0])
        self._log_means(batch, train_reconstruction_loss=L_rec, train_regularization_loss=L_reg,
                        train_ELBO=L_rec + L_reg, train_bpd=bpd)  # fmt: skip
        return bpd

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        L_rec, L_reg, bpd = self(batch[0])
        self._log_means(batch, val_reconstruction_loss=L_rec, val_regularization_loss=L_reg,
                        val_ELBO=L_rec + L_reg, val_bpd=bpd)  # fmt: skip

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        L_rec, L_reg, bpd = self(batch[0])
        self._log_means(batch, test_reconstruction_loss=L_rec, test_regularization_loss=L_reg,
                        test_ELBO=L_rec + L_reg, test_bpd=bpd, step=self.current_epoch + 1.0)  # fmt: skip

    def _log_means(self, batch: tuple[Tensor, Tensor], **losses: Tensor | float) -> None:
        """Log the means over all images of an epoch; `step` is their place in TensorBoard."""
        self.log_dict(losses, on_step=False, on_epoch=True, batch_size=len(batch[0]), sync_dist=True,
                      logger=not self.recorded)  # fmt: skip


class GenerateCallback(pl.Callback):
    """Writes a grid of samples to TensorBoard before training, every few epochs, and after the last one (question 1.8).

    Each grid is drawn with the same random numbers, so that grids can be compared. The random state of the training
    does not change.

    Args:
        batch_size: images in the grid.
        every_n_epochs: epochs between two grids.
        save_to_disk: also write `epoch_{n}_samples.png` into the run directory.
    """

    def __init__(self, batch_size: int = 64, every_n_epochs: int = 5, save_to_disk: bool = False):
        super().__init__()
        self.batch_size = batch_size
        self.every_n_epochs = every_n_epochs
        self.save_to_disk = save_to_disk

    def on_train_start(self, trainer: pl.Trainer, pl_module: VAE) -> None:
        if trainer.global_step == 0:
            self.sample_and_save(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: VAE) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs:
            self.sample_and_save(trainer, pl_module, epoch)

    def sample_and_save(self, trainer: pl.Trainer, pl_module: VAE, epoch: int) -> None:
        """Draw samples in evaluation mode and write them as the grid of this epoch."""
        was_training = pl_module.training
        pl_module.eval()
        try:
            with isolate_rng(include_cuda=pl_module.device.type == "cuda"):
                torch.manual_seed(0)
                grid = sample_grid(pl_module.sample(self.batch_size))
        finally:
            pl_module.train(was_training)
        if not trainer.is_global_zero or trainer.logger is None:
            return
        trainer.logger.experiment.add_image("Samples", grid, global_step=epoch)
        if self.save_to_disk:
            write_picture(Path(trainer.logger.log_dir, f"epoch_{epoch}_samples.png"), grid)


def load_vae(path: Path) -> tuple[VAE, dict]:
    """The model of a checkpoint, on the CPU and in evaluation mode, and the checkpoint's content.

    Raises:
        InputError: the file cannot be read, or is not a checkpoint of this model.
    """
    checkpoint = read_checkpoint(path, WANTED, part="part 1")
    try:
        model = VAE(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{path} is a checkpoint of another model: choose one that part 1 wrote") from error
    return model.eval(), checkpoint


def train_vae(args: argparse.Namespace) -> list[dict[str, float]]:
    """Train a VAE, keep the checkpoint with the lowest validation bpd, test it, and write the results.

    Args:
        args: flags of `train.py`; a missing flag has its default.

    Returns:
        Lightning's test result: one dictionary with `test_bpd`, `test_reconstruction_loss`,
        `test_regularization_loss` and `test_ELBO`.

    Raises:
        InputError: a flag, the data, the run to resume or the log directory cannot be used, or a loss is not finite.
        KeyboardInterrupt, SystemExit: a signal has ended the training; a message has told how to resume it.
    """
    args, run_dir, saved = complete_args(args, read=lambda path: load_vae(path)[1])
    finished = saved["epoch"] + 1 if saved else 0
    if finished > args.epochs or (finished == args.epochs and (run_dir / "summary.json").exists()):
        way = "raise --epochs to continue it" if args.lr_schedule == "constant" else "its one-cycle schedule has ended"
        raise InputError(f"the run has already finished epoch {finished}: {way}")
    pl.seed_everything(args.seed, workers=True, verbose=False)
    record, checkpoints = RunRecord(args), BestAndLast()
    show_bar = args.progress_bar or sys.stdout.isatty()
    try:
        trainer = pl.Trainer(
            accelerator=args.accelerator,
            devices=args.devices,
            num_nodes=args.num_nodes,
            strategy=args.strategy,
            precision=args.precision,
            deterministic=args.deterministic,
            benchmark=not args.deterministic,
            max_epochs=args.epochs,
            logger=False,  # for the moment: the first process alone has a run directory
            plugins=[AtomicCheckpointIO(), *cluster_environment(args)],
            callbacks=[SeedEveryEpoch(args.seed), record, GenerateCallback(save_to_disk=True), checkpoints,
                       *([TQDMProgressBar()] if show_bar else [])],
            enable_progress_bar=show_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=os.devnull,
        )  # fmt: skip
    except (MisconfigurationException, ValueError) as error:
        raise InputError(f"--accelerator, --devices, --num_nodes, --strategy or --precision: {error}") from error
    train_loader, val_loader, test_loader = load_data(args, trainer.strategy.root_device, epoch=finished)
    vae = VAE(args.num_filters, args.z_dim, args.lr, args.lr_schedule).to(memory_format=torch.channels_last)
    if args.compile:
        vae.compile()
    first = trainer.is_global_zero
    with open_run(Path(args.log_dir, "lightning_logs"), run_dir) if first else contextlib.nullcontext() as directory:
        if first:
            trainer.logger = TensorBoardLogger(directory.parents[1], directory.parent.name, directory.name,
                                               default_hp_metric=False, purge_step=finished + 1)  # fmt: skip
        trainer.fit(vae, train_loader, val_loader, ckpt_path=run_dir and run_dir / LAST, weights_only=True)
        best, checkpoint = load_vae(Path(checkpoints.best_model_path))
        test_result = trainer.test(best, test_loader, verbose=False)
        test_result[0].pop("step")  # no result, but a place in TensorBoard
        if first:
            write_results(trainer, record, best, checkpoint["epoch"] + 1, test_loader, test_result[0])
    return test_result


if __name__ == "__main__":
    raise SystemExit(run_command(train_vae, ARGS))

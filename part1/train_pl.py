"""The VAE as a LightningModule, and its training (questions 1.7 to 1.9)."""

import sys
from pathlib import Path

if __name__ == "__main__":  # flags first, since importing PyTorch takes seconds
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # for `python -m part1.train_pl` and `python -P`
    from cli import start
    from inputs import parse_args

    ARGS = start(parse_args)

import argparse

import torch
from torch import Tensor

from callbacks import GenerateCallback as GenerateCallback  # the course imports it from here
from cli import run_command
from cnn_encoder_decoder import CNNDecoder, CNNEncoder
from gpu import compile_options, configure_gpu
from inputs import InputError, parse_args, resolve_settings
from metrics import EpochMeansModule
from processes import check_compiler, explained_failures
from rewind import run_directory
from run_folder import read_checkpoint
from training_run import (
    configure_cpu,
    gpu_backend,
    join_processes,
    log_to_stdout,
    make_loaders,
    make_trainer,
    resumable,
    seed_everything,
    silence_lightning,
    write_results,
)
from utils import KLD, elbo_to_bpd, reconstruction_loss, sample_reparameterize


class VAE(EpochMeansModule):
    """Variational autoencoder of images with 16 grey values (Kingma and Welling, 2014).

    Args:
        num_filters: channels of the first convolution.
        z_dim: dimensions of the latent space.
        lr: learning rate of Adam.
    """

    def __init__(self, num_filters: int, z_dim: int, lr: float):
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

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr, fused=True)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._step(batch, "test")

    def _step(self, batch: tuple[Tensor, Tensor], mode: str) -> Tensor:
        """The loss of a batch, in bits per dimension. All losses are added to the means of the epoch."""
        imgs, _ = batch
        L_rec, L_reg, bpd = self(imgs)
        self.add_losses(mode, (L_rec, L_reg, L_rec + L_reg, bpd), num_images=len(imgs))
        return bpd


def load_vae(path: Path) -> tuple[VAE, dict]:
    """The model of a checkpoint, on the CPU and in evaluation mode, and the checkpoint's content.

    Raises:
        InputError: the file cannot be read, or is not a checkpoint of this model.
    """
    checkpoint = read_checkpoint(path)
    try:
        model = VAE(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{path} is a checkpoint of another model than this VAE: choose one that part 1 wrote"
        ) from error
    return model.eval(), checkpoint


def train_vae(args: argparse.Namespace) -> list[dict[str, float]]:
    """Train a VAE, keep the checkpoint with the lowest validation bpd, test it, and write the results.

    Args:
        args: flags of `train.py`; a missing flag has its default.

    Returns:
        Lightning's test result: one dictionary with `test_bpd`, `test_reconstruction_loss`,
        `test_regularization_loss` and `test_ELBO`.

    Raises:
        InputError: a flag, the data, the run to resume or the log directory cannot be used, or the loss is not finite.
        KeyboardInterrupt, SystemExit: a signal has ended the training; a message has told how to resume it.
    """
    log_to_stdout()
    configure_cpu()
    silence_lightning()
    settings = resolve_settings(args, read_checkpoint=lambda path: load_vae(path)[1])
    check_compiler(settings)
    with explained_failures(lower="--batch_size, --num_filters or --z_dim"):
        return _train(settings)


def _train(settings: argparse.Namespace) -> list[dict[str, float]]:
    processes = join_processes(settings)
    train_loader, val_loader, test_loader = make_loaders(settings)
    configure_gpu(settings.deterministic)
    seed_everything(settings.seed)
    vae = VAE(settings.num_filters, settings.z_dim, settings.lr).to(memory_format=torch.channels_last)
    if settings.precision == "64-true":
        vae.double()  # before the checkpoint is loaded, which would be rounded to float32 otherwise
    if settings.compile:
        vae.compile(**compile_options(gpu_backend(settings.accelerator)))
    trainer, record = make_trainer(settings, processes)
    with run_directory(trainer, record, settings), resumable(trainer, settings):
        trainer.fit(vae, train_loader, val_loader, ckpt_path=settings.checkpoint, weights_only=True)
        best, saved = load_vae(Path(trainer.checkpoint_callback.best_model_path))
        if settings.compile:
            best.compile(**compile_options(gpu_backend(settings.accelerator)))
        test_result = trainer.test(best, test_loader, verbose=False)
        test_result[0].pop("step")  # the place on TensorBoard's axis, which is no result
        if trainer.is_global_zero:
            write_results(settings, trainer, record, best, saved["epoch"] + 1, test_loader, test_result[0])
    return test_result


def main(argv: list[str] | argparse.Namespace | None = None) -> int:
    """Run the command line.

    Args:
        argv: its words, or the parsed flags; None: those of this process.

    Returns:
        The exit code: 0; 2 after one sentence about input that cannot be used; 130, 143 or 138 after SIGINT, SIGTERM or
        SIGUSR1.
    """
    args = argv if isinstance(argv, argparse.Namespace) else parse_args(argv)
    return run_command(train_vae, args, "train.py")


if __name__ == "__main__":
    raise SystemExit(main(ARGS))

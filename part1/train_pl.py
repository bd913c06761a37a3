"""The VAE as a LightningModule, and its training."""

import argparse
import logging
import os
import shutil
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torchvision.utils import save_image

import run_folder
from callbacks import BestAndLast, EpochBar, GenerateCallback, RunRecord, SeedEveryEpoch
from cnn_encoder_decoder import CNNDecoder, CNNEncoder
from evaluation import encode, importance_weighted_bound
from inputs import DATA_DIR, LOG_DIR, InputError, NoDataError, beside, check, completed, continued, make_writable
from mnist import load_data
from pictures import plot_bpd_curve, plot_codes
from utils import KLD, elbo_to_bpd, reconstruction_loss, sample_reparameterize, visualize_manifold

log = logging.getLogger(__name__)
METRICS = ("reconstruction_loss", "regularization_loss", "ELBO", "bpd")
PROJECTED = 1000  # test images in TensorBoard's projector: all 10,000 take 0.7 GB to write, and a browser long to draw


class NotFiniteError(InputError):
    """The loss became NaN or infinite."""


class VAE(pl.LightningModule):
    """Variational autoencoder of images with 16 grey values (Kingma and Welling, 2014).

    Args:
        num_filters: channels of the first convolution.
        z_dim: dimensions of the latent space.
        lr: learning rate of Adam.
    """

    CHECK_EVERY_N_STEPS = 50

    def __init__(self, num_filters: int, z_dim: int, lr: float):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = CNNEncoder(num_filters=num_filters, z_dim=z_dim)
        self.decoder = CNNDecoder(num_filters=num_filters, z_dim=z_dim)
        self._totals, self._num_images = {}, {}
        for mode in ("train", "val", "test"):
            self._reset_totals(mode)
        self._first_bad_step = torch.tensor(torch.inf)

    def forward(self, imgs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One-sample estimate of the negative evidence lower bound.

        Args:
            imgs: long [B, 1, 28, 28] with values 0 .. 15.

        Returns:
            Three scalars: reconstruction loss and regularisation loss, each in nats, summed over the dimensions of an
            image and averaged over the batch, and their sum in bits per dimension.
        """
        mean, log_std = self.encoder(imgs)
        narrow, wide = mean.dtype, torch.promote_types(mean.dtype, torch.float32)
        mean, log_std = mean.to(wide), log_std.to(wide)
        z = sample_reparameterize(mean, log_std.exp(), validate_args=False)
        L_rec = reconstruction_loss(self.decoder(z.to(narrow)), imgs).mean()
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

    def on_train_epoch_start(self) -> None:
        self._reset_totals("train")
        self._first_bad_step = torch.tensor(torch.inf)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        bpd = self._step(batch, "train")
        bad_step = torch.where(bpd.detach().isfinite(), torch.inf, float(batch_idx + 1))
        self._first_bad_step = torch.minimum(self._first_bad_step.to(bad_step), bad_step)
        return bpd

    def on_train_batch_end(self, outputs, batch, batch_idx: int) -> None:
        if (batch_idx + 1) % self.CHECK_EVERY_N_STEPS == 0 or self.trainer.is_last_batch:
            self._check_finite()
        if self.trainer.is_last_batch:  # logged here, and not later, so that all callbacks see the epoch's means
            self._log_totals("train")

    def on_validation_epoch_start(self) -> None:
        self._reset_totals("val")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        if self._anywhere(~self._totals["val"].isfinite().all()):
            raise self._not_finite("validation loss", self.trainer.num_training_batches)
        self._log_totals("val")

    def on_test_epoch_start(self) -> None:
        self._reset_totals("test")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "test")

    def on_test_epoch_end(self) -> None:
        self._log_totals("test")

    def _step(self, batch: tuple[Tensor, Tensor], mode: str) -> Tensor:
        """Losses of one batch, added to the pass's sums on the device, where nothing has to wait for them."""
        imgs, _ = batch
        L_rec, L_reg, bpd = self(imgs)
        losses = torch.stack([L_rec, L_reg, L_rec + L_reg, bpd]).detach()
        self._totals[mode] = self._totals[mode].to(bpd.device) + len(imgs) * losses
        self._num_images[mode] += len(imgs)
        return bpd

    def _log_totals(self, mode: str) -> None:
        """Log the means over a whole pass; Lightning takes the entry `step` as the place on the horizontal axis."""
        means = self._totals[mode] / max(self._num_images[mode], 1)
        metrics = {f"{mode}_{name}": mean for name, mean in zip(METRICS, means, strict=True)}
        metrics["step"] = float(self.current_epoch + (mode != "test"))
        for name, value in metrics.items():
            in_bar = name.endswith("_bpd")
            self.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1, prog_bar=in_bar)

    def _reset_totals(self, mode: str) -> None:
        self._totals[mode], self._num_images[mode] = torch.zeros(len(METRICS)), 0

    def _check_finite(self) -> None:
        step = self.trainer.strategy.reduce(self._first_bad_step, reduce_op="min").item()
        if step != torch.inf:
            raise self._not_finite("loss", int(step))

    def _anywhere(self, bad: Tensor) -> bool:
        """Whether it is so in any of the processes, which have to stop together."""
        return bool(self.trainer.strategy.reduce(bad.float(), reduce_op="max").item())

    def _not_finite(self, loss: str, step: int) -> NotFiniteError:
        kept = (
            "the checkpoints of the epochs before it are kept" if self.current_epoch else "there is no checkpoint yet"
        )
        return NotFiniteError(
            f"the {loss} is not finite in epoch {self.current_epoch + 1}, step {step} of the epoch: lower --lr or "
            f"raise --precision; {kept}"
        )


def load_vae(path: Path) -> tuple[VAE, dict]:
    """Model and checkpoint of `path`.

    Raises:
        InputError: the file is missing, damaged, or not a checkpoint of this model.
    """
    checkpoint = run_folder.read_checkpoint(path)
    try:
        model = VAE(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{path} is a checkpoint of another model than this VAE: choose one that part 1 wrote"
        ) from error
    return model.eval(), checkpoint


def train_vae(args: argparse.Namespace) -> list[dict[str, float]]:
    """Train, keep the checkpoint with the lowest validation bpd, and test it.

    Args:
        args: the flags of `train.py`; a flag that is missing has its default.

    Returns:
        Lightning's test result: one dictionary with `test_bpd`, `test_reconstruction_loss`,
        `test_regularization_loss` and `test_ELBO`.

    Raises:
        InputError: a flag, the data, the run to resume or the log folder cannot be used; or the loss is not finite.
        KeyboardInterrupt: it was interrupted, after a message that says how to go on.
        SystemExit: it got SIGTERM, after the same message.
    """
    run_folder.prepare_processor()
    run_folder.quieten_lightning()
    args = completed(args)
    log_dir = beside(args.log_dir, LOG_DIR)
    checkpoint = run = None
    if args.resume:
        checkpoint = run_folder.find_checkpoint(args.resume, log_dir, "last")
        _, saved = load_vae(checkpoint)
        run = run_folder.run_of(checkpoint, "--resume")
        args = continued(args, saved["flags"])
        done = saved["epoch"] + 1
        complete = (run / "summary.json").exists() and "importance_samples" not in args.given
        if done > args.epochs or (done == args.epochs and complete):
            raise InputError(f"the run is done up to epoch {done}: raise --epochs to continue it")
    check(args)
    make_writable(*((run, "run to --resume") if run else (log_dir, "--log_dir")))
    args.data_dir = str(beside(args.data_dir, DATA_DIR))
    try:
        train_loader, val_loader, test_loader = load_data(args, pin_memory=kind_of_gpu(args.accelerator) == "cuda")
    except NoDataError as error:
        raise NoDataError(f"{error}, or train on the built-in digits with --dataset digits") from error
    # Lightning does this later than loaders with workers ask for the first order.
    train_loader.sampler.set_epoch(saved["epoch"] + 1 if checkpoint else 0)

    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    pl.seed_everything(args.seed, workers=True, verbose=False)
    model = VAE(num_filters=args.num_filters, z_dim=args.z_dim, lr=args.lr).to(memory_format=torch.channels_last)
    if args.precision == "64-true":
        model.double()  # Lightning does so later than it loads a checkpoint, which would be rounded
    if args.compile:
        model.compile()

    trainer, record = make_trainer(args, log_dir, checkpoint)
    try:
        trainer.fit(model, train_loader, val_loader, ckpt_path=checkpoint, weights_only=True)
        return evaluate(args, trainer, record, test_loader)
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning exits where it is interrupted or terminated
        if trainer.is_global_zero:
            log.info("\n%s", run_folder.how_to_go_on(Path(trainer.logger.log_dir), log_dir, args))
        if isinstance(stop, SystemExit) and not stop.code:  # SIGTERM
            raise
        raise KeyboardInterrupt from stop


def evaluate(args: argparse.Namespace, trainer: pl.Trainer, record, test_loader) -> list[dict[str, float]]:
    """Test the checkpoint with the lowest validation bpd, and write what a run leaves; returns Lightning's result."""
    best, saved = load_vae(Path(trainer.checkpoint_callback.best_model_path))
    if args.compile:
        best.compile()
    test_result = trainer.test(best, test_loader, verbose=False)
    test_result[0].pop("step")  # the place on TensorBoard's axis, no result
    if trainer.is_global_zero:
        best.float().to(trainer.strategy.root_device)
        finish(args, trainer, record, best, saved["epoch"] + 1, test_loader, test_result[0])
    return test_result


def make_trainer(args: argparse.Namespace, log_dir: Path, checkpoint: Path | None):
    """Trainer, and the callback that keeps the run's record; both write into one run folder."""
    place = {"save_dir": log_dir} if checkpoint is None else run_folder.logger_place(checkpoint)
    logger = TensorBoardLogger(**place, default_hp_metric=False)
    record = RunRecord(args)
    callbacks = [
        *([EMAWeightAveraging(decay=args.ema, device=kind_of_gpu(args.accelerator))] if args.ema else []),
        SeedEveryEpoch(args.seed),
        GenerateCallback(save_to_disk=True),
        record,
        BestAndLast(),
    ]
    bar = run_folder.wants_bar(args.progress_bar)
    if bar:
        callbacks.append(EpochBar(record))
    there = (0 if args.accelerator == "cpu" else torch.cuda.device_count()) or os.cpu_count()
    if args.devices != "auto" and int(args.devices) > there:
        raise InputError(f"--devices is {args.devices}, but this machine has {there}: give at most so many")
    if args.accelerator == "gpu" and not kind_of_gpu("gpu"):
        raise InputError("--accelerator gpu: PyTorch finds no GPU here: leave the flag out to train on the CPU")
    try:
        trainer = pl.Trainer(
            accelerator=args.accelerator,
            devices=args.devices if args.devices == "auto" else int(args.devices),
            num_nodes=args.num_nodes,
            strategy=args.strategy,
            precision=args.precision,
            max_epochs=args.epochs,
            logger=logger,
            plugins=[run_folder.OneStepCheckpoints()],
            callbacks=callbacks,
            enable_progress_bar=bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--accelerator, --devices, --num_nodes, --strategy or --precision cannot be used here: {reason}"
        ) from error
    if args.precision == "64-true" and trainer.strategy.root_device.type == "mps":
        raise InputError("--precision 64-true needs float64, which Apple's GPUs do not have: give --accelerator cpu")
    return trainer, record


def kind_of_gpu(accelerator: str) -> str | None:
    """Name of the device that a training with this flag runs on; None for the CPU. The moving average of the weights
    is kept there, since Lightning copies the model before it moves it."""
    if accelerator == "cpu":
        return None
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None


def finish(args, trainer, record, best: VAE, best_epoch: int, test_loader, test_result: dict[str, float]) -> None:
    """What a run leaves beside its metrics: bounds, pictures, codes for the projector, and last of all summary.json."""
    folder, board = Path(trainer.logger.log_dir), trainer.logger.experiment
    with isolate_rng(include_cuda=best.device.type == "cuda"):
        torch.manual_seed(args.seed)
        results = {name: float(value) for name, value in test_result.items()}
        if args.importance_samples:
            nll = importance_weighted_bound(best, test_loader, args.importance_samples)
            results["importance_samples"] = args.importance_samples
            results["test_importance_weighted_nll"] = nll
            results["test_importance_weighted_bpd"] = float(elbo_to_bpd(torch.tensor(nll), (1, 1, 28, 28)))
        means, labels = encode(best, test_loader)
    pixels = test_loader.dataset[:PROJECTED][0] / 15
    points = F.pad(means[:PROJECTED], (0, max(0, 3 - args.z_dim)))  # with fewer dimensions the projector draws nothing
    shutil.rmtree(folder / f"{args.epochs:05}", ignore_errors=True)  # the projector's, of a run that is measured again
    board.add_embedding(points, labels[:PROJECTED].tolist(), pixels, global_step=args.epochs, tag="codes")
    figures = {"bpd_curve": plot_bpd_curve(record.rows, results["test_bpd"])}
    if args.z_dim == 2:
        manifold = visualize_manifold(best.decoder, grid_size=20)
        save_image(manifold, folder / "vae_manifold.png")
        board.add_image("Manifold", manifold, global_step=args.epochs)
        figures["codes"] = plot_codes(means, labels)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
        board.add_figure(name, figure, global_step=args.epochs)
    run_folder.write_summary(folder, args, trainer, record, best_epoch, results)
    board.flush()
    score = f"{results['test_bpd']:.4f} bpd (best epoch {best_epoch} of {args.epochs})"
    if args.importance_samples:
        bound = f"{results['test_importance_weighted_bpd']:.4f}"
        score += f"; importance-weighted with {args.importance_samples} samples {bound} bpd"
    log.info("test: %s; pictures and numbers are in %s", score, folder)


if __name__ == "__main__":
    from train import main

    raise SystemExit(main())

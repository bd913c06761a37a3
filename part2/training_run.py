"""The state of a training: model, optimizers and loaders, and the record that it keeps in its folder."""

import argparse
import contextlib
import logging
import math
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import save_image
from tqdm import tqdm

import run_folder
from evaluation import distances_to_prior, encode, kolmogorov_smirnov
from models import AdversarialAE
from pictures import manifold_grid, one_of_each_digit, plot_codes, plot_curves
from utils import TensorBoardLogger

PROJECTED = 1000  # test images in TensorBoard's projector: all 10,000 take 0.7 GB to write, and a browser long to draw
log = logging.getLogger(__name__)
LAYOUT = {
    "adversarial game": {
        "losses": ["Multiline", ["generator/gen_loss", "discriminator/loss_real", "discriminator/loss_fake"]],
        "accuracy": ["Multiline", ["discriminator/accuracy"]],
        "reconstruction": ["Multiline", ["generator/recon_loss"]],
    }
}


def make_optimizers(model: AdversarialAE, ae_lr: float, d_lr: float) -> tuple[torch.optim.Adam, torch.optim.SGD]:
    """Adam for encoder and decoder, with the beta1 of adversarial games, and plain SGD for the discriminator."""
    autoencoder = [*model.encoder.parameters(), *model.decoder.parameters()]
    return (
        torch.optim.Adam(autoencoder, lr=ae_lr, betas=(0.5, 0.999), fused=True),
        torch.optim.SGD(model.discriminator.parameters(), lr=d_lr, fused=True),
    )


class TrainingRun:
    """What a training works on and what it leaves. Only the first of several processes writes.

    Args:
        args: the run's flags.
        fabric: launched.
        folder: the run's folder.
        train_loader: has an `EpochSampler`.
        test_loader: images in a fixed order.
        saved: checkpoint to go on from.

    Attributes:
        epoch: finished epochs.
        model: the `AdversarialAE`; `wrapped_model` is what Fabric made of it, whose losses all processes share.
        pictures: one test image of each digit, [10, 1, 28, 28], the same in every run.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        fabric: Fabric,
        folder: Path,
        train_loader: DataLoader,
        test_loader: DataLoader,
        saved: dict | None = None,
    ):
        self.args, self.fabric, self.folder = args, fabric, folder
        self.train_loader, self.test_loader = train_loader, test_loader
        self.epoch, self.rows, self.seconds = 0, [], []
        train_loader.sampler.share(fabric.global_rank, fabric.world_size)
        self.steps_per_epoch = len(train_loader)
        self.pictures = one_of_each_digit(*test_loader.dataset[:])

        fabric.seed_everything(args.seed, workers=False, verbose=False)
        self.model = AdversarialAE(args.z_dim).to(memory_format=torch.channels_last)
        self.wrapped_model, self.optimizer_ae, self.optimizer_disc = fabric.setup(
            self.model, *make_optimizers(self.model, args.ae_lr, args.d_lr)
        )
        for method in ("get_loss_autoencoder", "get_loss_discriminator"):
            # Several processes average gradients of what goes through the wrapper alone, and both steps begin here.
            self.wrapped_model.mark_forward_method(method)

        self.writer = None
        if fabric.is_global_zero:
            # What an interrupted epoch has written is written again; TensorBoard then shows the newer values alone.
            purge_step = saved["logger_ae"]["global_step"] + 1 if saved else None
            self.writer = SummaryWriter(str(folder), purge_step=purge_step)
            self.writer.add_custom_scalars(LAYOUT)
        self.logger_ae = TensorBoardLogger(self.writer, name="generator")
        self.logger_disc = TensorBoardLogger(self.writer, name="discriminator")
        if saved:
            self._restore(saved)
        if fabric.is_global_zero:
            (folder / "summary.json").unlink(missing_ok=True)  # of a complete run that is continued
            run_folder.write_json(folder / "hparams.json", run_folder.flags_of(args))
            count = "" if fabric.world_size == 1 else f"{fabric.world_size} x "
            log.info("%s parameters; on %s; run folder: %s", f"{sum(p.numel() for p in self.model.parameters()):,}",
                     count + run_folder.device_name(fabric.device), folder)  # fmt: skip

    def _restore(self, saved: dict) -> None:
        self.model.load_state_dict(saved["state_dict"])  # in the precision of the run by now
        self.optimizer_ae.load_state_dict(saved["optimizer_ae"])
        self.optimizer_disc.load_state_dict(saved["optimizer_disc"])
        if saved["precision"]:  # a run in another precision has no scale of the loss to go on with
            self.fabric.strategy.precision.load_state_dict(saved["precision"])
        self.logger_ae.load_state_dict(saved["logger_ae"])
        self.logger_disc.load_state_dict(saved["logger_disc"])
        self.epoch, self.rows, self.seconds = saved["epoch"], list(saved["rows"]), list(saved["seconds"])

    @contextlib.contextmanager
    def batches(self, epoch: int):
        """The batches of an epoch, with a bar on a terminal.

        Their order and the noise of the epoch depend on the seed and the epoch alone, so that a resumed run draws what
        an uninterrupted one does; each process has noise of its own.
        """
        self.train_loader.sampler.set_epoch(epoch - 1)
        torch.manual_seed((self.args.seed * 1_000_003 + epoch) * 1_009 + self.fabric.global_rank)
        hidden = not (self.fabric.is_global_zero and run_folder.wants_bar(self.args.progress_bar))
        name = f"epoch {epoch}/{self.args.epochs}"
        with tqdm(self.train_loader, desc=name, disable=hidden, leave=False, mininterval=0.5) as bar:
            yield bar

    def evaluate(self, epoch: int, means: dict[str, float]) -> bool:
        """Make the row of an epoch from the training's means and the test set; returns whether the test loss is
        finite, the same on all processes."""
        if self.fabric.world_size > 1:
            means = {name: float(mean) for name, mean in self.fabric.all_reduce(means).items()}
        test = None
        if self.fabric.is_global_zero:
            codes, _, recon_loss = self._encode_test_images()
            test = {"recon_loss": recon_loss, **distances_to_prior(codes)}
        test = self.fabric.broadcast(test)
        self.row = {
            "epoch": epoch,
            "step": self.logger_ae.global_step,
            **{f"train_{name}": mean for name, mean in means.items()},
            **{f"test_{name}": value for name, value in test.items()},
        }
        return math.isfinite(test["recon_loss"])

    def keep(self, seconds: float) -> None:
        """Finish an epoch: write its row and the checkpoint."""
        self.epoch = self.row["epoch"]
        self.rows.append(self.row)
        self.seconds.append(seconds)
        if not self.fabric.is_global_zero:
            return
        for name, value in self.row.items():
            if name.startswith("test_"):
                self.writer.add_scalar(name.replace("_", "/", 1), value, self.epoch)
        self.writer.add_scalar("epoch_seconds", seconds, self.epoch)
        self.writer.flush()
        run_folder.write_metrics(self.folder / "metrics.csv", self.rows)
        checkpoint = {
            "state_dict": self.model.state_dict(),
            "hyper_parameters": {"z_dim": self.args.z_dim},
            "optimizer_ae": self.optimizer_ae.state_dict(),
            "optimizer_disc": self.optimizer_disc.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "logger_ae": self.logger_ae.state_dict(),
            "logger_disc": self.logger_disc.state_dict(),
            "epoch": self.epoch,
            "rows": self.rows,
            "seconds": self.seconds,
            "flags": run_folder.flags_of(self.args),
        }
        run_folder.write_checkpoint(self.folder / run_folder.CHECKPOINT, checkpoint)
        log.info("epoch %d/%d: reconstruction %.4f (test %.4f), accuracy of the discriminator %.2f, %.1f s, "
                 "about %s left", self.epoch, self.args.epochs, self.row["train_recon_loss"],
                 self.row["test_recon_loss"], self.row["train_accuracy"], seconds,
                 run_folder.time_left(self.seconds, self.args.epochs))  # fmt: skip

    def finish(self) -> dict:
        """What a run leaves beside its metrics: curves, codes for the projector, and last of all summary.json."""
        if not self.fabric.is_global_zero:
            return {}
        codes, labels, _ = self._encode_test_images()
        pixels = self.test_loader.dataset[:PROJECTED][0] / 2 + 0.5
        # With fewer dimensions the projector draws nothing.
        points = F.pad(codes[:PROJECTED], (0, max(0, 3 - self.args.z_dim)))
        shutil.rmtree(self.folder / f"{self.epoch:05}", ignore_errors=True)  # the projector's, where this is repeated
        self.writer.add_embedding(points, labels[:PROJECTED].tolist(), pixels, global_step=self.epoch, tag="codes")
        figures = {"curves": plot_curves(self.rows)}
        if self.args.z_dim == 2:
            figures["codes"] = plot_codes(codes, labels)
            manifold = manifold_grid(self.model.decoder)
            save_image(manifold, self.folder / "manifold.png")
            self.writer.add_image("manifold", manifold, global_step=self.epoch)
        for name, figure in figures.items():
            figure.savefig(self.folder / f"{name}.png", dpi=150)
            self.writer.add_figure(name, figure, global_step=self.epoch)
        results = {name: value for name, value in self.rows[-1].items() if name not in ("epoch", "step")}
        results["test_ks"] = kolmogorov_smirnov(codes).tolist()
        machine = {"device": run_folder.device_name(self.fabric.device), "num_devices": self.fabric.world_size}
        run_folder.write_summary(self.folder, self.args, self.rows, self.seconds, results, machine)
        log.info("test: reconstruction %.4f, Kolmogorov-Smirnov distance to the prior %.3f",
                 results["test_recon_loss"], results["test_ks_mean"])  # fmt: skip
        log.info("pictures and numbers are in %s", self.folder)
        return results

    def close(self) -> None:
        """Write what TensorBoard has not written yet."""
        if self.writer:
            self.writer.close()

    def _encode_test_images(self):
        """Codes, labels and reconstruction error of the test set."""
        was_training = self.model.training
        self.model.eval()
        try:
            return encode(self.model, self.test_loader)
        finally:
            self.model.train(was_training)

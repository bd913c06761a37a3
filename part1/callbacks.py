"""What happens while the VAE trains: samples, seeds, checkpoints, the record of the run, and a progress bar."""

import argparse
import csv
import logging
import statistics
import time
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.core.saving import save_hparams_to_yaml
from pytorch_lightning.utilities.seed import isolate_rng
from torchvision.utils import save_image

import run_folder
from pictures import sample_grid

log = logging.getLogger(__name__)


class GenerateCallback(pl.Callback):
    """Puts a grid of samples into TensorBoard before training and after every few epochs.

    The same latent vectors and the same random draws are used each time, so that the grids can be compared, and the
    random numbers of the training are left alone.

    Args:
        batch_size: images in the grid.
        every_n_epochs: epochs between two grids.
        save_to_disk: also write `epoch_{n}_samples.png` into the run's folder.
    """

    def __init__(self, batch_size: int = 64, every_n_epochs: int = 5, save_to_disk: bool = False):
        super().__init__()
        self.batch_size = batch_size
        self.every_n_epochs = every_n_epochs
        self.save_to_disk = save_to_disk

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self.sample_and_save(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs:
            self.sample_and_save(trainer, pl_module, epoch)

    def sample_and_save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """Sample a grid and write it under the given epoch."""
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
            save_image(grid, Path(trainer.logger.log_dir, f"epoch_{epoch}_samples.png"))


class SeedEveryEpoch(pl.Callback):
    """Seeds the noise at the start of every pass over a data set, so that it does not depend on what was drawn before.

    A resumed run so draws what an uninterrupted one does. Validation and test use the same noise each time, which
    makes epochs comparable; training uses other noise in each epoch. Each rank has its own.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self._seed_stream(trainer, 1 + trainer.current_epoch)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch_idx == 0:
            self._seed_stream(trainer, 0)

    on_test_batch_start = on_validation_batch_start

    def _seed_stream(self, trainer: pl.Trainer, stream: int) -> None:
        torch.manual_seed((self.seed * 1_000_003 + stream) * 1_009 + trainer.global_rank)


class BestAndLast(ModelCheckpoint):
    """Keeps `best.ckpt`, the epoch with the lowest validation bpd, and `last.ckpt`."""

    def __init__(self):
        super().__init__(
            filename="best",
            monitor="val_bpd",
            mode="min",
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict) -> None:
        """The paths of a run that was moved since are those of its folder now."""
        folder = Path(self.dirpath)
        state = dict(state_dict, dirpath=self.dirpath)
        for name in ("best_model_path", "last_model_path", "kth_best_model_path"):
            state[name] = str(folder / Path(state[name]).name)
        state["best_k_models"] = {
            str(folder / Path(path).name): score for path, score in state["best_k_models"].items()
        }
        super().load_state_dict(state)


class RunRecord(pl.Callback):
    """Writes `metrics.csv` and `hparams.yaml`, reports each epoch, and keeps both flags and rows in the checkpoint.

    Args:
        args: the run's flags.
    """

    def __init__(self, args: argparse.Namespace):
        self.flags = {name: value for name, value in vars(args).items() if name not in ("given", "resume")}
        self.quiet = run_folder.wants_bar(args.progress_bar)
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module) -> None:
        """Also where a complete run has no epoch left and is measured again."""
        if trainer.is_global_zero:
            folder = Path(trainer.logger.log_dir)
            folder.mkdir(parents=True, exist_ok=True)
            save_hparams_to_yaml(str(folder / "hparams.yaml"), self.flags)

    def on_train_start(self, trainer: pl.Trainer, pl_module) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.logger.log_dir)
        (folder / "summary.json").unlink(missing_ok=True)  # of a complete run that is continued
        trainer.logger.experiment.add_custom_scalars(
            {"bits per dimension": {"training and validation": ["Multiline", ["train_bpd", "val_bpd"]]}}
        )
        log.info("%s parameters; on %s; run folder: %s", f"{sum(p.numel() for p in pl_module.parameters()):,}",
                 run_folder.devices_of(trainer), folder)  # fmt: skip

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module) -> None:
        metrics = {
            name: value.item() for name, value in trainer.callback_metrics.items() if name[:4] in ("trai", "val_")
        }
        self.rows.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **metrics})
        self.seconds.append(time.perf_counter() - self._start)
        if not trainer.is_global_zero:
            return
        trainer.logger.experiment.add_scalar("epoch_seconds", self.seconds[-1], trainer.current_epoch + 1)
        run_folder.write_whole(Path(trainer.logger.log_dir, "metrics.csv"), self._csv)
        if not self.quiet:
            log.info("epoch %d/%d: train %.4f, val %.4f bpd, %.1f s, about %s left", trainer.current_epoch + 1,
                     trainer.max_epochs, metrics["train_bpd"], metrics["val_bpd"], self.seconds[-1],
                     self.time_left(trainer.max_epochs))  # fmt: skip

    def time_left(self, num_epochs: int) -> timedelta:
        """Estimate for the rest of a training of so many epochs, from the latest ones."""
        return timedelta(seconds=round(statistics.median(self.seconds[-5:]) * (num_epochs - len(self.seconds))))

    def _csv(self, file) -> None:
        writer = csv.DictWriter(file, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        checkpoint["flags"] = self.flags

    def state_dict(self) -> dict:
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict) -> None:
        self.rows, self.seconds = list(state_dict["rows"]), list(state_dict["seconds"])


class EpochBar(TQDMProgressBar):
    """A progress bar over an epoch, which says about how long the whole training will still take."""

    def __init__(self, record: RunRecord):
        super().__init__()
        self.record = record

    def get_metrics(self, trainer: pl.Trainer, pl_module) -> dict:
        metrics = super().get_metrics(trainer, pl_module)
        if self.record.seconds:
            metrics["left"] = str(self.record.time_left(trainer.max_epochs))
        return metrics

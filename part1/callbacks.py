"""Lightning callbacks of a training: seeds, the record of a run, checkpoints."""

import argparse
import csv
import io
import math
import time
from datetime import timedelta
from pathlib import Path
from statistics import median

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.core.saving import save_hparams_to_yaml
from pytorch_lightning.plugins.io import TorchCheckpointIO

from run import InputError, atomic_write, device_name


class SeedEveryEpoch(pl.Callback):
    """Seeds PyTorch at the start of each pass over a data set.

    A resumed run so draws the same noise as an uninterrupted one. Training has new noise in each epoch; validation and
    test have the same noise each time, so that epochs can be compared. Each process has its own noise.

    Args:
        seed: seed of the run.
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


class RunRecord(pl.Callback):
    """Writes the losses of each epoch into `metrics.csv` and TensorBoard, and prints them. Checkpoints hold them, too.

    Lightning itself would log the training losses after the checkpoint: a process killed between would lose an epoch of
    the curve.

    Args:
        args: all flags of the run.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.rows: list[dict[str, float]] = []  # of metrics.csv
        self.seconds: list[float] = []  # that each epoch took

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.recorded = True
        if trainer.is_global_zero:
            run_dir, size = trainer.logger.log_dir, sum(parameter.numel() for parameter in pl_module.parameters())
            print(f"{size:,} parameters; on {device_name(pl_module.device)}; run directory: {run_dir}")
            save_hparams_to_yaml(str(Path(run_dir, "hparams.yaml")), vars(self.args))
            if not self.rows:  # a resumed run has it
                chart = {"training and validation": ["Multiline", ["train_bpd", "val_bpd"]]}
                trainer.logger.experiment.add_custom_scalars({"bits per dimension": chart})

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        losses = {name: value.item() for name, value in trainer.callback_metrics.items()}
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise InputError(f"{name} is not finite in epoch {epoch}: lower --lr or raise --precision; the "
                                 "checkpoints of earlier epochs are kept")  # fmt: skip
        self.rows.append({"epoch": epoch, "step": trainer.global_step, **losses})
        self.seconds.append(time.perf_counter() - self._start)
        if not trainer.is_global_zero:
            return
        for name, value in {**losses, "epoch_seconds": self.seconds[-1]}.items():
            trainer.logger.experiment.add_scalar(name, value, epoch)
        trainer.logger.experiment.flush()
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic_write(Path(trainer.logger.log_dir, "metrics.csv"), table.getvalue())
        left = timedelta(seconds=round(median(self.seconds[-5:]) * (trainer.max_epochs - epoch)))
        pl_module.print(f"epoch {epoch}/{trainer.max_epochs}: train {losses['train_bpd']:.4f}, val "
                        f"{losses['val_bpd']:.4f} bpd, {self.seconds[-1]:.1f} s, about {left} left")  # fmt: skip

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        checkpoint["flags"] = vars(self.args)

    def state_dict(self) -> dict:
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict) -> None:
        self.rows, self.seconds = list(state_dict["rows"]), list(state_dict["seconds"])


class BestAndLast(ModelCheckpoint):
    """Keeps `best.ckpt`, the epoch with the lowest validation bpd, and `last.ckpt`."""

    def __init__(self):
        super().__init__(filename="best", monitor="val_bpd", mode="min", save_last=True, save_on_train_epoch_end=True,
                         enable_version_counter=False)  # fmt: skip

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore the state, also where the run directory was moved: Lightning would forget the best score then."""
        old, new = state_dict["dirpath"], self.dirpath
        state = {name: str(value).replace(old, new) if "path" in name else value for name, value in state_dict.items()}
        state["best_k_models"] = {path.replace(old, new): score for path, score in state["best_k_models"].items()}
        super().load_state_dict(state)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint in one step. Lightning's own plugin writes it into the system's temporary directory first,
    which may be another disk."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options=None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        atomic_write(Path(path), buffer.getbuffer())

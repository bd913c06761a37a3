"""Lightning callbacks of a training: sample texts, seeds, the record of a run, checkpoints.

A round is the steps up to the next validation; it is one of Lightning's epochs. A pass over the text may begin and end
within a round.
"""

import argparse
import csv
import io
import math
import time
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.core.saving import save_hparams_to_yaml
from pytorch_lightning.plugins.io import TorchCheckpointIO

from generate import RULE
from run import InputError, atomic_write, device_name

LOG_EVERY_N_STEPS = 50
METRICS = ("train_loss", "train_acc", "learning_rate", "val_loss", "val_acc", "val_bpc")


class GenerateCallback(pl.Callback):
    """Writes sample texts into TensorBoard and the run directory: before training, every few steps, and at the end.

    They are drawn with the same random numbers each time, so that they can be compared. The random state of the
    training does not change.

    Args:
        batch_size, n_steps: number of texts each time, and of new tokens in each.
        every_n_steps: training steps from one set of texts to the next.
    """

    def __init__(self, batch_size: int = 5, every_n_steps: int = 1000, n_steps: int = 300):
        super().__init__()
        self.batch_size, self.every_n_steps, self.n_steps = batch_size, every_n_steps, n_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self.sample_and_save(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx: int) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self.sample_and_save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs and trainer.global_step % self.every_n_steps:
            self.sample_and_save(trainer, pl_module)

    def sample_and_save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the sample texts of the current step. Raises InputError if a weight is not finite."""
        step = trainer.global_step
        if not math.isfinite(torch.nn.utils.get_total_norm(list(pl_module.parameters())).item()):
            raise InputError(f"the weights are not finite after step {step}: lower --learning_rate or raise "
                             "--precision; the last checkpoint is kept")  # fmt: skip
        if not trainer.is_global_zero or trainer.logger is None:
            return
        texts = pl_module.generate(num_samples=self.batch_size, n_steps=self.n_steps, verbose=False)
        shown = "\n\n---\n\n".join("\n".join(f"    {line}" for line in text.splitlines()) for text in texts)
        trainer.logger.experiment.add_text("Training texts", shown, step)  # indented, so that Markdown keeps its lines
        atomic_write(Path(trainer.logger.log_dir, "texts", f"step_{step}.txt"), f"\n{RULE}\n".join(texts) + "\n")


class SeedEveryRound(pl.Callback):
    """Seeds dropout at the start of each round, so that a resumed run draws the same masks as an uninterrupted one.
    Each process has its own seed."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module, batch, batch_idx: int) -> None:
        if batch_idx == 0:
            torch.manual_seed((self.seed * 1_000_003 + trainer.global_step) * 1_009 + trainer.global_rank)


class RunRecord(pl.Callback):
    """Writes losses into TensorBoard, those of the training every LOG_EVERY_N_STEPS steps; and, once a round, into
    `metrics.csv` and the output. Checkpoints hold them, too, with all that is needed to use the model.

    Lightning itself would log the training losses after the checkpoint: a process killed between would lose a round of
    the curve.

    Args:
        args: all flags of the run.
        text_sha256: SHA-256 checksum of the text.
    """

    def __init__(self, args: argparse.Namespace, text_sha256: str):
        self.args, self.text_sha256 = args, text_sha256
        self.rows: list[dict[str, float]] = []  # of metrics.csv
        self.outputs: list[dict[str, torch.Tensor]] = []  # of the steps since the training was last logged

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.recorded = True
        if trainer.is_global_zero:
            run_dir, size = trainer.logger.log_dir, sum(parameter.numel() for parameter in pl_module.parameters())
            print(f"{size:,} parameters; {pl_module.num_steps()} steps; on {device_name(pl_module.device)}; run "
                  f"directory: {run_dir}")  # fmt: skip
            save_hparams_to_yaml(str(Path(run_dir, "hparams.yaml")), vars(self.args))
            if not self.rows:  # a resumed run has it
                chart = {"training and validation": ["Multiline", ["train_loss", "val_loss"]]}
                trainer.logger.experiment.add_custom_scalars({"loss in nats": chart})

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start, self._first_step = time.perf_counter(), trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module, batch, batch_idx: int) -> None:
        self.learning_rate = trainer.optimizers[0].param_groups[0]["lr"]  # of this step

    def on_train_batch_end(self, trainer, pl_module, outputs: dict, batch, batch_idx: int) -> None:
        self.outputs.append(outputs)
        if trainer.global_step % LOG_EVERY_N_STEPS and not trainer.is_last_batch:
            return
        means = torch.stack([torch.stack([output["loss"], output["accuracy"]]) for output in self.outputs]).mean(dim=0)
        loss, accuracy = trainer.strategy.reduce(means, reduce_op="mean").tolist()
        self.outputs = []
        self._check_finite("the training loss", loss, trainer.global_step)
        if trainer.is_global_zero:
            scalars = {"train_loss": loss, "train_acc": accuracy, "learning_rate": self.learning_rate}
            self._add_scalars(trainer, scalars)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step, before = trainer.global_step, self.rows[-1]["seconds"] if self.rows else 0.0
        seconds = time.perf_counter() - self._start
        speed = (step - self._first_step) * pl_module.tokens_per_step() / seconds
        found = {name: value.item() for name, value in trainer.callback_metrics.items()}
        found["learning_rate"] = self.learning_rate
        for name, value in found.items():
            self._check_finite(name, value, step)
        row = {"step": step, "seconds": before + seconds, "tokens_per_second": speed,
               **{name: found[name] for name in METRICS}}  # fmt: skip
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        scalars = ("val_loss", "val_acc", "val_bpc", "tokens_per_second")
        self._add_scalars(trainer, {name: row[name] for name in scalars})
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic_write(Path(trainer.logger.log_dir, "metrics.csv"), table.getvalue())
        num_steps = pl_module.num_steps()
        left = timedelta(seconds=round((num_steps - step) * pl_module.tokens_per_step() / speed))
        pl_module.print(f"step {step}/{num_steps}: train {row['train_loss']:.4f}, val {row['val_loss']:.4f} nats "
                        f"({row['val_bpc']:.3f} bits per character), {row['seconds']:.0f} s, {speed:.0f} tokens/s, "
                        f"about {left} left")  # fmt: skip

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        checkpoint["flags"], checkpoint["text_sha256"] = vars(self.args), self.text_sha256
        checkpoint["gpt_config"] = {**vars(pl_module.model.config), "model_type": None}
        checkpoint["vocabulary"] = pl_module.train_dataset.vocabulary.state()

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict) -> None:
        self.rows = list(state_dict["rows"])

    def _check_finite(self, name: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise InputError(f"{name} is not finite at step {step}, or up to {LOG_EVERY_N_STEPS} steps before: lower "
                             "--learning_rate or raise --precision; the last checkpoint is kept")  # fmt: skip

    def _add_scalars(self, trainer: pl.Trainer, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            trainer.logger.experiment.add_scalar(name, value, trainer.global_step)
        trainer.logger.experiment.flush()


class BestAndLast(ModelCheckpoint):
    """Keeps `best.ckpt`, with the lowest validation loss, and `last.ckpt`."""

    def __init__(self):
        super().__init__(filename="best", monitor="val_loss", mode="min", save_last=True, save_on_train_epoch_end=True,
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

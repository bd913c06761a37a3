"""Lightning callbacks of a training: samples, seeds, the stop at a bad loss, checkpoints, records, a progress bar.

A round is the steps between two validations; it is one of Lightning's epochs.
"""

import argparse
import csv
import logging
import math
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.core.saving import save_hparams_to_yaml

from cli import raise_if_stopped
from inputs import NotFiniteError
from processes import StopRequest
from run_files import CHECKPOINT_FORMAT, atomic_write
from run_folder import config_of, devices_of, recorded_flags

log = logging.getLogger("part3")

RULE = "-" * 80


class GenerateCallback(pl.Callback):
    """Writes sample texts into TensorBoard and the run directory: before training, every few steps, and at the end.

    They are drawn with the same random numbers each time, so that they can be compared. The random state of the
    training is not changed.

    Args:
        batch_size: number of texts each time.
        every_n_steps: training steps from one set of texts to the next.
        n_steps: new tokens in each text.
    """

    def __init__(self, batch_size: int = 5, every_n_steps: int = 1000, n_steps: int = 300):
        self.batch_size, self.every_n_steps, self.n_steps = batch_size, every_n_steps, n_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self.sample_and_save(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx: int) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            for callback in trainer.callbacks:
                if isinstance(callback, StopAtNonFiniteLoss):  # nothing can be drawn from probabilities that are NaN
                    callback.check(trainer, pl_module, batch)
            self.sample_and_save(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step % self.every_n_steps:
            pl_module.to(trainer.strategy.root_device)  # by now, Lightning has moved it to the CPU
            self.sample_and_save(trainer, pl_module)

    def sample_and_save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the sample texts of the current step."""
        if not trainer.is_global_zero or trainer.logger is None:
            return
        texts = pl_module.generate(num_samples=self.batch_size, n_steps=self.n_steps, verbose=False)
        step = trainer.global_step
        shown = "\n\n---\n\n".join("\n".join(f"    {line}" for line in text.splitlines()) for text in texts)
        trainer.logger.experiment.add_text("Training texts", shown, step)  # indented, so that Markdown keeps its lines
        folder = Path(trainer.logger.log_dir, "texts")
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / f"step_{step}.txt", lambda file: file.write(f"\n{RULE}\n".join(texts) + "\n"))


class StopAtNonFiniteLoss(pl.Callback):
    """Ends a training, in all processes together, once a training or validation loss is NaN or infinite.

    Losses stay on the device. They are checked every EVERY_N_STEPS steps, at the end of a round and before sample
    texts are drawn, since each check waits for the device.

    Raises:
        NotFiniteError: the message names the first bad step.
    """

    EVERY_N_STEPS = 50

    def __init__(self):
        self.steps: list[int] = []  # since the last check
        self.losses: list[torch.Tensor] = []

    def on_before_backward(self, trainer: pl.Trainer, pl_module, loss: torch.Tensor) -> None:
        self._add(trainer.global_step + 1, loss)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if trainer.global_step % self.EVERY_N_STEPS == 0 or trainer.is_last_batch:
            self.check(trainer, pl_module)

    def check(self, trainer: pl.Trainer, pl_module, batch=None) -> None:
        """Raise NotFiniteError if the loss of a step since the last check is not finite, or if that of the next step
        would not be on the given batch. To be called in all processes."""
        if batch is not None:
            was_training = pl_module.model.training
            with torch.no_grad():
                pl_module.model.eval()
                self._add(trainer.global_step + 1, pl_module.loss_and_hits(batch)[0])
                pl_module.model.train(was_training)
        if not self.losses:
            return
        losses = torch.stack(self.losses)
        steps = torch.tensor(self.steps, dtype=torch.float32, device=losses.device)  # exact up to 2**24
        first = torch.where(losses.isfinite(), torch.inf, steps).min()
        first = trainer.strategy.reduce(first, reduce_op="min").item()
        self.steps.clear()
        self.losses.clear()
        if first != torch.inf:
            raise self._error(trainer, "loss", int(first))

    def on_validation_end(self, trainer: pl.Trainer, pl_module) -> None:
        if not math.isfinite(pl_module.results["val_loss"]):
            raise self._error(trainer, "validation loss", trainer.global_step)

    def _add(self, step: int, loss: torch.Tensor) -> None:
        self.steps.append(step)
        self.losses.append(loss.detach())

    def _error(self, trainer: pl.Trainer, loss: str, step: int) -> NotFiniteError:
        kept = getattr(trainer.checkpoint_callback, "kept_steps", 0)
        state = f"the checkpoint after step {kept} is kept" if kept else "there is no checkpoint yet"
        return NotFiniteError(
            f"the {loss} is not finite at step {step}: lower --learning_rate or raise --precision; {state}"
        )


class StopWhenWarned(pl.Callback):
    """Ends a training, in all processes together, after the round in which SIGUSR1 arrived, with which SLURM warns
    before the time limit. Lightning's handler of SIGTERM is replaced by the one that was set before.

    Args:
        request: says whether SIGUSR1 has arrived.
    """

    def __init__(self, request: StopRequest):
        self.request, self.sigterm = request, signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module) -> None:
        if callable(self.sigterm) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.sigterm)

    on_test_start = on_train_start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module) -> None:
        """By now, the checkpoint of the previous round is written."""
        if trainer.current_epoch:
            self.request.stop_if_asked(trainer.strategy.root_device)

    def on_train_batch_start(self, *args) -> None:
        raise_if_stopped()

    on_validation_batch_start = on_train_batch_start


class SeedEveryRound(pl.Callback):
    """Seeds dropout at the start of every round, so that a resumed run draws the same masks as an uninterrupted one.
    Each process has its own seed."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module, batch, batch_idx: int) -> None:
        if batch_idx == 0:
            torch.manual_seed((self.seed * 1_000_003 + trainer.global_step) * 1_009 + trainer.global_rank)


class BestAndLast(ModelCheckpoint):
    """Keeps `best.ckpt`, with the lowest validation loss, and `last.ckpt`.

    Args:
        kept_steps: training steps in the `last.ckpt` of a run to resume; 0 for a new run.

    Attributes:
        kept_steps: training steps in the current `last.ckpt`.
        best_so_far: validation loss of `best.ckpt`, if it differs from that in the checkpoint to resume.
    """

    best_so_far: float | None = None

    def __init__(self, kept_steps: int = 0):
        super().__init__(
            filename="best",
            monitor="val_loss",
            mode="min",
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.kept_steps = kept_steps

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.kept_steps = trainer.global_step

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore the state, with paths in the present run directory, which may have been moved."""
        folder = Path(self.dirpath)
        state = dict(state_dict, dirpath=self.dirpath)
        for name in ("best_model_path", "last_model_path", "kth_best_model_path"):
            state[name] = str(folder / Path(state[name]).name)
        state["best_k_models"] = {
            str(folder / Path(path).name): score for path, score in state["best_k_models"].items()
        }
        if self.best_so_far is not None:
            best = torch.tensor(self.best_so_far)
            state.update(best_model_score=best, kth_value=best, best_k_models={state["best_model_path"]: best})
        super().load_state_dict(state)


class RunRecord(pl.Callback):
    """Writes `metrics.csv` and `hparams.yaml`, and reports each validation. Checkpoints hold its rows, the flags, the
    model's config and the vocabulary.

    Args:
        args: the run's flags.
        num_steps: steps of the whole training.
        tokens_per_step: tokens in a step, of all processes together.
        text_sha256: SHA-256 checksum of the text.
        quiet: do not report validations, because a progress bar is shown.
    """

    def __init__(
        self, args: argparse.Namespace, num_steps: int, tokens_per_step: int, text_sha256: str, quiet: bool = False
    ):
        self.flags, self.text_sha256, self.quiet = recorded_flags(args), text_sha256, quiet
        self.num_steps, self.tokens_per_step = num_steps, tokens_per_step
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.logger.log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_hparams_to_yaml(str(folder / "hparams.yaml"), self.flags)
        if not self.rows:  # a resumed run has it
            trainer.logger.experiment.add_custom_scalars(
                {"loss in nats": {"training and validation": ["Multiline", ["train_loss", "val_loss"]]}}
            )
        log.info("%s parameters; %d steps; on %s; run directory: %s",
                 f"{sum(p.numel() for p in pl_module.parameters()):,}", self.num_steps, devices_of(trainer),
                 folder)  # fmt: skip

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self._start, self._first_step = time.perf_counter(), trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module) -> None:
        step, before = trainer.global_step, self.rows[-1]["seconds"] if self.rows else 0.0
        seconds = time.perf_counter() - self._start
        speed = (step - self._first_step) * self.tokens_per_step / seconds
        row = {"step": step, "seconds": before + seconds, "tokens_per_second": speed, **pl_module.results}
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        trainer.logger.experiment.add_scalar("tokens_per_second", speed, step)
        self.write_metrics(Path(trainer.logger.log_dir))
        if not self.quiet:
            log.info("step %d/%d: train %.4f, val %.4f nats (%.3f bits per character), %.0f s, %.0f tokens/s, "
                     "about %s left", step, self.num_steps, row["train_loss"], row["val_loss"], row["val_bpc"],
                     row["seconds"], speed, self.time_left(step))  # fmt: skip

    def time_left(self, step: int) -> timedelta:
        """Estimated time for the steps after this one, from the throughput of the last round."""
        tokens = (self.num_steps - step) * self.tokens_per_step
        return timedelta(seconds=round(tokens / self.rows[-1]["tokens_per_second"]))

    def write_metrics(self, run_dir: Path) -> None:
        """Write `metrics.csv`."""

        def write(file) -> None:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

        atomic_write(run_dir / "metrics.csv", write)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        checkpoint["flags"], checkpoint["text_sha256"] = self.flags, self.text_sha256
        checkpoint["gpt_config"] = config_of(pl_module.model)
        checkpoint["vocabulary"] = pl_module.train_dataset.vocabulary.state()
        checkpoint["format"] = CHECKPOINT_FORMAT

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict) -> None:
        self.rows = list(state_dict["rows"])


class StepBar(TQDMProgressBar):
    """A progress bar for the steps of a round. It also shows how many steps of the whole training are done, and the
    estimated time for the rest."""

    def __init__(self, record: RunRecord):
        super().__init__()
        self.record = record

    def on_train_epoch_start(self, trainer: pl.Trainer, *args) -> None:
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(f"after {trainer.global_step} of {self.record.num_steps} steps")

    def get_metrics(self, trainer: pl.Trainer, pl_module) -> dict:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if pl_module.shown_loss is not None:
            metrics["train_loss"] = f"{pl_module.shown_loss:.3f}"
        if self.record.rows:
            metrics["left"] = str(self.record.time_left(trainer.global_step))
        return metrics

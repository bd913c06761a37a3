"""Lightning callbacks of a training: samples, seeds, the stop at a bad loss, checkpoints, records, a progress bar."""

import argparse
import csv
import logging
import signal
import threading
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from pytorch_lightning.core.saving import save_hparams_to_yaml
from pytorch_lightning.utilities.seed import isolate_rng

from cli import raise_if_stopped
from inputs import NotFiniteError
from pictures import sample_grid, write_picture
from processes import StopRequest
from run_files import CHECKPOINT_FORMAT, atomic_write
from run_folder import devices_of, recorded_flags, time_left

log = logging.getLogger("part1")


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

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self.sample_and_save(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs:
            self.sample_and_save(trainer, pl_module, epoch)

    def sample_and_save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
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


class MovingAverage(WeightAveraging):
    """Validates, tests and saves an exponential moving average of the weights, updated in each step to
    decay * average + (1 - decay) * weights. The first step's weights are the first average.

    Lightning's own callback does the same with four operations for each tensor, and waits for a GPU in each step.

    Args:
        decay: the average's share, in [0, 1).
        device: of the average. Lightning copies the weights before it moves them to a GPU, so it has to be told.
    """

    state_key = "EMAWeightAveraging"  # its name in checkpoints

    def __init__(self, decay: float, device: str | None):
        super().__init__(device=device)
        self.decay = decay

    def on_train_start(self, trainer: pl.Trainer, pl_module) -> None:
        self._has_begun = bool(self._average_model.n_averaged)  # in a resumed run

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        average, weights = list(self._average_model.module.parameters()), list(pl_module.parameters())
        if self._has_begun:
            torch._foreach_mul_(average, self.decay)
            torch._foreach_add_(average, torch._foreach_mul(weights, 1 - self.decay))
        else:
            torch._foreach_copy_(average, weights)
        self._has_begun, self._latest_update_step = True, trainer.global_step
        self._average_model.n_averaged += 1


class StopAtNonFiniteLoss(pl.Callback):
    """Ends a training, in all processes together, once a training or validation loss is NaN or infinite.

    Losses stay on the device. They are checked every EVERY_N_STEPS steps and at the end of a pass, since each check
    waits for the device.

    Raises:
        NotFiniteError: the message names the epoch and the first bad step.
    """

    EVERY_N_STEPS = 50

    def __init__(self):
        self.losses: list[torch.Tensor] = []  # since the last check
        self.val_losses: list[torch.Tensor] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module) -> None:
        self.losses.clear()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        self.losses.append(outputs["loss"])
        if (batch_idx + 1) % self.EVERY_N_STEPS == 0 or trainer.is_last_batch:
            first = self._first_bad(trainer, self.losses)
            if first is not None:
                raise self._error(trainer, "loss", step=batch_idx + 2 - len(self.losses) + first)
            self.losses.clear()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module) -> None:
        self.val_losses.clear()

    def on_validation_batch_end(
        self, trainer, pl_module, outputs, batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.val_losses.append(outputs.clone())  # a CUDA graph (--compile) writes the next loss to the same place

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module) -> None:
        if self._first_bad(trainer, self.val_losses) is not None:
            raise self._error(trainer, "validation loss", step=trainer.num_training_batches)

    def _first_bad(self, trainer: pl.Trainer, losses: list[torch.Tensor]) -> int | None:
        """Index of the first loss that is not finite, in any of the processes."""
        losses = torch.stack(losses)
        indices = torch.arange(len(losses), device=losses.device)
        first = torch.where(losses.isfinite(), torch.inf, indices).min()
        first = trainer.strategy.reduce(first, reduce_op="min").item()
        return None if first == torch.inf else int(first)

    def _error(self, trainer: pl.Trainer, loss: str, step: int) -> NotFiniteError:
        epoch = trainer.current_epoch
        kept = "the checkpoints of the epochs before it are kept" if epoch else "there is no checkpoint yet"
        return NotFiniteError(
            f"the {loss} is not finite in epoch {epoch + 1}, step {step} of the epoch: lower --lr or raise "
            f"--precision; {kept}"
        )


class StopWhenWarned(pl.Callback):
    """Ends a training, in all processes together, after the epoch in which SIGUSR1 came, SLURM's warning before the
    time is over. Signals keep the handlers that they had before Lightning set its own.

    Args:
        request: knows whether SIGUSR1 has come.
    """

    def __init__(self, request: StopRequest):
        self.request, self.sigterm = request, signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module) -> None:
        if callable(self.sigterm) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.sigterm)

    on_test_start = on_train_start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module) -> None:
        """The checkpoint of the epoch before is written by now."""
        if trainer.current_epoch:
            self.request.stop_if_asked(trainer.strategy.root_device)

    def on_train_batch_start(self, *args) -> None:
        raise_if_stopped()

    on_validation_batch_start = on_test_batch_start = on_train_batch_start


class BestAndLast(ModelCheckpoint):
    """Keeps `best.ckpt`, the epoch with the lowest validation bpd, and `last.ckpt`.

    Attributes:
        best_so_far: validation bpd of `best.ckpt`, where it is not what the checkpoint to resume says.
    """

    best_so_far: float | None = None

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
        """Restore the state; in a run directory that was moved, the checkpoints' paths are the new ones."""
        directory = Path(self.dirpath)
        state = dict(state_dict, dirpath=self.dirpath)
        for name in ("best_model_path", "last_model_path", "kth_best_model_path"):
            state[name] = str(directory / Path(state[name]).name)
        state["best_k_models"] = {
            str(directory / Path(path).name): score for path, score in state["best_k_models"].items()
        }
        if self.best_so_far is not None:
            best = torch.tensor(self.best_so_far)
            state.update(best_model_score=best, kth_value=best, best_k_models={state["best_model_path"]: best})
        super().load_state_dict(state)


class RunRecord(pl.Callback):
    """Writes `metrics.csv` and `hparams.yaml`, and reports each epoch. Checkpoints hold its rows and the flags.

    Args:
        settings: the run's settings.
        quiet: report no epochs, since a progress bar shows them.
    """

    def __init__(self, settings: argparse.Namespace, quiet: bool = False):
        self.flags = recorded_flags(settings)
        self.quiet = quiet
        self.rows: list[dict[str, float]] = []  # of metrics.csv
        self.seconds: list[float] = []  # that each epoch took

    def on_fit_start(self, trainer: pl.Trainer, pl_module) -> None:
        if trainer.is_global_zero:
            run_dir = Path(trainer.logger.log_dir)
            run_dir.mkdir(parents=True, exist_ok=True)
            save_hparams_to_yaml(str(run_dir / "hparams.yaml"), self.flags)

    def on_train_start(self, trainer: pl.Trainer, pl_module) -> None:
        if not trainer.is_global_zero:
            return
        if not self.rows:  # a resumed run has it
            trainer.logger.experiment.add_custom_scalars(
                {"bits per dimension": {"training and validation": ["Multiline", ["train_bpd", "val_bpd"]]}}
            )
        log.info("%s parameters; on %s; run directory: %s", f"{sum(p.numel() for p in pl_module.parameters()):,}",
                 devices_of(trainer), trainer.logger.log_dir)  # fmt: skip

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
        self.write_metrics(Path(trainer.logger.log_dir))
        if not self.quiet:
            log.info("epoch %d/%d: train %.4f, val %.4f bpd, %.1f s, about %s left", trainer.current_epoch + 1,
                     trainer.max_epochs, metrics["train_bpd"], metrics["val_bpd"], self.seconds[-1],
                     time_left(self.seconds, trainer.max_epochs))  # fmt: skip

    def write_metrics(self, run_dir: Path) -> None:
        """Write `metrics.csv`."""

        def write(file) -> None:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

        atomic_write(run_dir / "metrics.csv", write)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        checkpoint["flags"], checkpoint["format"] = self.flags, CHECKPOINT_FORMAT

    def state_dict(self) -> dict:
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict) -> None:
        self.rows, self.seconds = list(state_dict["rows"]), list(state_dict["seconds"])


class EpochBar(TQDMProgressBar):
    """A progress bar for each epoch, with an estimate of the time that the rest of the training takes.

    Args:
        record: knows how long each epoch took.
    """

    def __init__(self, record: RunRecord):
        super().__init__()
        self.record = record

    def get_metrics(self, trainer: pl.Trainer, pl_module) -> dict:
        metrics = super().get_metrics(trainer, pl_module)
        if self.record.seconds:
            metrics["left"] = str(time_left(self.record.seconds, trainer.max_epochs))
        return metrics

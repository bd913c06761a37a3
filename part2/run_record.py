"""The record that a training keeps in its run directory."""

import argparse
import contextlib
import logging

from lightning_fabric import Fabric

import run_folder
from event_files import EventWriter, purge_events
from inputs import CHECKPOINT, InputError
from run_files import CHECKPOINT_FORMAT, copy_file, open_run

FINAL_TAGS = ("manifold", "curves", "codes")  # pictures after the last epoch
LAYOUT = {  # TensorBoard's "Custom scalars": both players' losses in one chart
    "adversarial game": {
        "losses": ["Multiline", ["generator/gen_loss", "discriminator/loss_real", "discriminator/loss_fake"]],
        "accuracy": ["Multiline", ["discriminator/accuracy"]],
        "reconstruction": ["Multiline", ["generator/recon_loss"]],
    }
}
log = logging.getLogger("part2")


class RunRecord:
    """The record of a run in its directory: flags, metrics of each epoch, checkpoint, TensorBoard events. Only the
    first of several processes writes. It is a context, in which no other training can write into the directory.

    Args:
        settings: of the run.
        fabric: launched.

    Raises:
        InputError: another training of the run is going on, or the disk is full.

    Attributes:
        run_dir: the run directory.
        writer: TensorBoard writer; None on processes that do not write.
        rows: metrics of each finished epoch.
        seconds: duration of each finished epoch.
    """

    def __init__(self, settings: argparse.Namespace, fabric: Fabric):
        self.settings, self.fabric = settings, fabric
        saved, self.run_dir, self.writer = settings.saved, settings.run_dir, None
        self.rows, self.seconds = (list(saved["rows"]), list(saved["seconds"])) if saved else ([], [])
        self._context = contextlib.ExitStack()

    def __enter__(self) -> "RunRecord":
        outcome = None
        if self.fabric.is_global_zero:
            try:
                with contextlib.ExitStack() as stack:
                    self._open(stack)
                    self._context = stack.pop_all()
                outcome = self.run_dir
            except InputError as error:  # raised below, in all processes
                outcome = error
        outcome = self.fabric.broadcast(outcome)
        if isinstance(outcome, InputError):
            raise outcome
        self.run_dir = outcome
        return self

    def _open(self, stack: contextlib.ExitStack) -> None:
        resumed = (self.settings.run_dir, self.settings.checkpoint, self.settings.version)
        self.run_dir = stack.enter_context(open_run(self.settings.log_dir, *resumed))
        if self.settings.saved:
            self._rewind(self.settings.saved)
        self.writer = stack.enter_context(EventWriter(self.run_dir))
        if not self.settings.saved:
            self.writer.add_custom_scalars(LAYOUT)

    def __exit__(self, *exception) -> None:
        self._context.__exit__(*exception)

    def _rewind(self, saved: dict) -> None:
        """Make the run that of its checkpoint: what was written after it, by a killed process or because it is an
        earlier one, is replaced or deleted. The checkpoint comes first, so that this can be interrupted, too."""
        (self.run_dir / "summary.json").unlink(missing_ok=True)  # the run is not complete any more
        if self.settings.checkpoint != self.run_dir / CHECKPOINT:
            copy_file(self.settings.checkpoint, self.run_dir / CHECKPOINT)
        run_folder.write_metrics(self.run_dir / "metrics.csv", self.rows)
        step, epoch = saved["logger_ae"]["global_step"], saved["epoch"]

        def keep(tag: str, at: int) -> bool:
            if tag.startswith(FINAL_TAGS):  # written again
                return at < epoch
            return at <= (step if tag.startswith(("generator/", "discriminator/")) else epoch)

        purge_events(self.run_dir, keep)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.rows)

    def begin(self, state) -> None:
        """Write `hparams.json`."""
        if not self.fabric.is_global_zero:
            return
        run_folder.write_json(self.run_dir / "hparams.json", run_folder.recorded_flags(self.settings))
        count = "" if self.fabric.world_size == 1 else f"{self.fabric.world_size} x "
        log.info("%s parameters; on %s; run directory: %s", f"{sum(p.numel() for p in state.model.parameters()):,}",
                 count + run_folder.device_name(self.fabric.device), self.run_dir)  # fmt: skip

    def add_epoch(self, state, means: dict, scores: dict, seconds: float) -> None:
        """Record a finished epoch: its row in `metrics.csv`, its scalars, the checkpoint, and a line of progress.

        Args:
            state: after the epoch.
            means: the training losses of this process, means over the epoch.
            scores: of the test images.
            seconds: duration of the epoch.
        """
        if self.fabric.world_size > 1:
            means = {name: float(mean) for name, mean in self.fabric.all_reduce(means).items()}
        row = {"epoch": self.epoch + 1, "step": state.logger_ae.global_step}
        row |= {f"train_{name}": mean for name, mean in means.items()}
        row |= {f"test_{name}": score for name, score in scores.items()}
        self.rows.append(row)
        self.seconds.append(seconds)
        if not self.fabric.is_global_zero:
            return
        for name, score in scores.items():
            self.writer.add_scalar(f"test/{name}", score, self.epoch)
        self.writer.add_scalar("epoch_seconds", seconds, self.epoch)
        run_folder.write_metrics(self.run_dir / "metrics.csv", self.rows)
        checkpoint = {
            **state.state_dict(),
            "format": CHECKPOINT_FORMAT,
            "hyper_parameters": {"z_dim": self.settings.z_dim, "encoder": self.settings.encoder},
            "epoch": self.epoch,
            "rows": self.rows,
            "seconds": self.seconds,
            "flags": run_folder.recorded_flags(self.settings),
        }
        run_folder.write_checkpoint(self.run_dir / CHECKPOINT, checkpoint)
        log.info("epoch %d/%d: reconstruction %.4f (test %.4f), accuracy of the discriminator %.2f, %.1f s, "
                 "about %s left", self.epoch, self.settings.epochs, row["train_recon_loss"], row["test_recon_loss"],
                 row["train_accuracy"], seconds,
                 run_folder.time_left(self.seconds, self.settings.epochs))  # fmt: skip

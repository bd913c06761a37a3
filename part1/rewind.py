"""The beginning of a training in its run directory."""

import argparse
import contextlib
from pathlib import Path

import pytorch_lightning as pl

from callbacks import RunRecord
from event_files import purge_events
from inputs import RUNS, InputError
from run_files import copy_file, open_run
from run_folder import RECORD, read_checkpoint

FINAL_TAGS = ("test_", "Manifold", "bpd_curve", "codes")  # of the test and the pictures after the last epoch


@contextlib.contextmanager
def run_directory(trainer: pl.Trainer, record: RunRecord, settings: argparse.Namespace):
    """Context in which this training alone writes into its run directory: a new one, or that of the resumed run
    without what lies beyond the checkpoint.

    Raises:
        InputError: another training of this run is going on, or the disk is full.
    """
    if not trainer.is_global_zero:
        yield
        return
    resumed = (settings.run_dir, settings.checkpoint, settings.version)
    with open_run(Path(settings.log_dir, RUNS), *resumed) as run_dir:
        trainer.logger.run_dir = run_dir
        if settings.saved:
            rewind(run_dir, trainer, record, settings)
        try:
            yield
        finally:
            trainer.logger.close()


def rewind(run_dir: Path, trainer: pl.Trainer, record: RunRecord, settings: argparse.Namespace) -> None:
    """Make a run that of its checkpoint: what was written after it, by a killed process or because it is an earlier
    one, is replaced or deleted. `last.ckpt` comes first, so that this can be interrupted, too."""
    epoch = settings.saved["epoch"] + 1
    (run_dir / "summary.json").unlink(missing_ok=True)  # the run is not complete any more
    best, last = (run_dir / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    if settings.checkpoint != last:
        copy_file(settings.checkpoint, last)
    record.load_state_dict(settings.saved["callbacks"][RECORD])
    if settings.checkpoint != best and not _is_of_epoch(best, epoch):
        copy_file(last, best)
        trainer.checkpoint_callback.best_so_far = record.rows[-1]["val_bpd"]
    record.write_metrics(run_dir)
    # What follows the last epoch is written again.
    purge_events(run_dir, lambda tag, step: step < epoch if tag.startswith(FINAL_TAGS) else step <= epoch)


def _is_of_epoch(best: Path, epoch: int) -> bool:
    """Whether `best.ckpt` is whole, and of this epoch or an earlier one."""
    try:
        return read_checkpoint(best)["epoch"] + 1 <= epoch
    except InputError:
        return False

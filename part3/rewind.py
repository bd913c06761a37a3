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

FINAL_TAGS = ("curves",)  # of the picture after the last step
TEXTS = "Training texts"


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
    step = settings.saved["global_step"]
    (run_dir / "summary.json").unlink(missing_ok=True)  # the run is not complete any more
    best, last = (run_dir / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    if settings.checkpoint != last:
        copy_file(settings.checkpoint, last)
    record.load_state_dict(settings.saved["callbacks"][RECORD])
    if settings.checkpoint != best and not _is_of_step(best, step):
        copy_file(last, best)
        trainer.checkpoint_callback.best_so_far = record.rows[-1]["val_loss"]
    record.write_metrics(run_dir)

    def keep(tag: str, at: int) -> bool:
        written_again = tag.startswith(FINAL_TAGS) or (tag.startswith(TEXTS) and step % settings.generate_every_n_steps)
        return at < step if written_again else at <= step

    purge_events(run_dir, keep)


def _is_of_step(best: Path, step: int) -> bool:
    """Whether `best.ckpt` is whole, and of this step or an earlier one."""
    try:
        return read_checkpoint(best)["global_step"] <= step
    except InputError:
        return False

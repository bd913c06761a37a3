"""How Lightning writes into a run directory. The same file in parts 1 and 3."""

from collections.abc import Mapping
from pathlib import Path

import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from event_files import EventWriter
from run_files import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint in one step. Lightning's own plugin writes it into the directory for temporary files first
    and copies it from there, which takes more than one step where that is another file system."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options=None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(Path(path), lambda file: torch.save(checkpoint, file), mode="wb")


class RunLogger(TensorBoardLogger):
    """Writes to TensorBoard in the directory of a run. Lightning's own logger chooses a directory that another run may
    choose at the same time, replaces $VARIABLES in its name, and reports a full disk as an error of the values.

    Args:
        runs: directory of all runs; the first process sets `run_dir` before the training begins.
    """

    def __init__(self, runs: Path):
        super().__init__(save_dir=runs.parent, name=runs.name, version="of another process", default_hp_metric=False)
        self._run_dir = runs / self._version

    @property
    def run_dir(self) -> Path:
        """The run directory. Only the first process knows it."""
        return self._run_dir

    @run_dir.setter
    def run_dir(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._root_dir, self._name, self._version = str(run_dir.parent.parent), run_dir.parent.name, run_dir.name

    @property
    def log_dir(self) -> str:
        return str(self._run_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> EventWriter:
        if self._experiment is None:
            self._experiment = EventWriter(self.log_dir)
        return self._experiment

    def close(self) -> None:
        """Close the file of events; the next event would open a new one."""
        if self._experiment is not None:
            self._experiment.close()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for tag, value in metrics.items():
            self.experiment.add_scalar(tag, value, step)

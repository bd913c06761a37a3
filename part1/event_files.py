"""TensorBoard's event files of a run. The same file in all three parts."""

import itertools
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import FileWriter, SummaryWriter

from run_files import atomic_write

_counter = itertools.count()


class EventWriter(SummaryWriter):
    """A SummaryWriter whose events are in the file as soon as they are added: a killed process loses none. An error
    of the disk is raised where an event is added; in the thread of PyTorch's own writer, it would be lost in a
    traceback."""

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = _FileWriter(str(self.log_dir))
            self.all_writers = {self.file_writer.get_logdir(): self.file_writer}
        return self.file_writer


class _FileWriter(FileWriter):
    def __init__(self, log_dir: str):
        self.event_writer = _EventFile(log_dir)


class _EventFile:
    """One file of events in `log_dir`, created with the first event."""

    def __init__(self, log_dir: str):
        self._log_dir, self._file = log_dir, None

    def get_logdir(self) -> str:
        return self._log_dir

    def add_event(self, event: Event) -> None:
        if self._file is None:
            Path(self._log_dir).mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.{next(_counter)}"
            self._file = _Unbuffered(Path(self._log_dir, name))
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(event)

    def _write(self, event: Event) -> None:
        RecordWriter(self._file).write(event.SerializeToString())

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    reopen = flush  # the next event opens a new file


class _Unbuffered:
    """A new file that keeps nothing in memory, so that nothing is left to write when the disk is full."""

    def __init__(self, path: Path):
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115, closed by `close`
        self.close = self._file.close

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # a nearly full disk takes a part; the next call raises the error
            rest = rest[self._file.write(rest) :]


def purge_events(run_dir: Path, keep: Callable[[str, int], bool]) -> None:
    """Delete events from the files of a run. TensorBoard's own `purge_step` has one axis for all tags, and a run has
    tags over steps and tags over epochs. An event that was written in part, by a killed process, is deleted, too.

    Args:
        run_dir: the run directory.
        keep: whether an event stays, by its tag and step.
    """
    for path in sorted(run_dir.glob("events.out.tfevents.*")):
        records, kept, size = list(RawEventFileLoader(str(path)).Load()), [], 0
        for record in records:
            size += len(record) + 16  # length, two checksums
            event = Event.FromString(record)
            if event.WhichOneof("what") == "summary":
                stay = [value for value in event.summary.value if keep(value.tag, event.step)]
                if not stay:
                    continue
                if len(stay) < len(event.summary.value):
                    del event.summary.value[:]
                    event.summary.value.extend(stay)
                    record = event.SerializeToString()
            kept.append(record)
        if kept != records or size != path.stat().st_size:
            atomic_write(path, lambda file, kept=kept: _write_records(file, kept), mode="wb")


def _write_records(file, records: list[bytes]) -> None:
    writer = RecordWriter(file)
    for record in records:
        writer.write(record)

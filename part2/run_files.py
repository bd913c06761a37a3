"""Files of a run that survive faults: directories that runs do not share, files that are whole, checkpoints that are
verified. The same file in all three parts."""

import contextlib
import os
import re
import shutil
import socket
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from cli import NO_ROOM, file_version
from inputs import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CHECKPOINT_FORMAT = 1  # a later program that writes checkpoints which this one cannot read counts it up
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")

# --------------------------------------------------------------------------------------------------- a run's directory


@contextlib.contextmanager
def open_run(
    runs: Path, run_dir: Path | None = None, checkpoint: Path | None = None, version: tuple | None = None
) -> Iterator[Path]:
    """Context in which this process alone writes into a run directory. Of several processes of a training, only the
    first enters it.

    Args:
        runs: directory of all runs.
        run_dir: directory of the run to resume; None: a new one, `runs/version_N`.
        checkpoint, version: the checkpoint to resume from, and its `file_version` when it was read.

    Returns:
        The run directory.

    Raises:
        InputError: another training of this run is going on, or has gone on since the checkpoint was read, or a file
            cannot be written.
    """
    with naming_failed_writes(run_dir or runs):
        run_dir = run_dir or claim_run_dir(runs)
    with naming_failed_writes(run_dir), RunLock(run_dir):
        if checkpoint and file_version(checkpoint) != version:
            raise InputError(f"another training has replaced {checkpoint} since it was read: give the command again")
        remove_leftovers(run_dir)
        yield run_dir


def claim_run_dir(runs: Path) -> Path:
    """Create `runs/version_N`, where N is one more than the highest number so far. Of several runs that start at the
    same time, each gets its own."""
    runs.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name[8:]) for path in runs.glob("version_*") if path.name[8:].isdecimal()]
    number = max(taken, default=-1) + 1
    while True:
        run_dir = runs / f"version_{number}"
        try:
            run_dir.mkdir()
        except FileExistsError:  # a run that started at the same time has taken the number
            number += 1
        else:
            return run_dir


class RunLock:
    """Context in which no second training of a run can start. The system frees the lock when the process ends, however
    it ends. Without effect on Windows, and on file systems without locks.

    Raises:
        InputError: another process, or another training in this one, has the lock.
    """

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir

    def __enter__(self) -> "RunLock":
        self._file = open(self.run_dir / ".lock", "a+", encoding="utf-8")
        try:
            self._lock()
        except BaseException:
            self._file.close()
            raise
        return self

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            raise InputError(
                f"a training of {self.run_dir} is going on ({holder}): wait for its end, or start a new run without "
                "--resume"
            ) from error
        except OSError:  # a file system without locks
            return
        # A loader's worker process would keep the lock for some seconds after its parent was killed.
        os.register_at_fork(after_in_child=self._file.close)
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def __exit__(self, *exception) -> None:
        self._file.close()


def remove_leftovers(run_dir: Path) -> None:
    """Delete what killed processes left of files that they were writing. `generate.py` may be writing right now."""
    for path in run_dir.rglob(".*.tmp"):
        if TEMPORARY.fullmatch(path.name) and "generated" not in path.relative_to(run_dir).parts:
            path.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------------- writing


def atomic_write(path: Path, write: Callable, mode: str = "w") -> None:
    """Replace a file in one step: after an interruption it has its old or its new content, never a part.

    Args:
        path: the file.
        write: function that is called with the open temporary file.
        mode: "w" for text, "wb" for bytes.

    Raises:
        OSError: the file cannot be written; it then has its old content.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # unique: other processes may write this file
    newline, encoding = (None, None) if "b" in mode else ("", "utf-8")
    file = None
    try:
        with open(temporary, mode, newline=newline, encoding=encoding) as opened:
            file = _RememberingError(opened)
            write(file)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if file is not None and file.error is not None and file.error is not error:
            raise file.error from None  # the cause, of which PyTorch reports only a consequence
        raise


class _RememberingError:
    """An open file that remembers the error of a write."""

    def __init__(self, file):
        self._file, self.error = file, None

    def write(self, data):
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def __getattr__(self, name: str):
        return getattr(self._file, name)


def copy_file(source: Path, target: Path) -> None:
    """Replace a file by the copy of another one, in one step."""
    with open(source, "rb") as file:
        atomic_write(target, lambda copy: shutil.copyfileobj(file, copy, 1 << 20), mode="wb")


@contextlib.contextmanager
def naming_failed_writes(directory: Path) -> Iterator[None]:
    """Context of writing into a directory.

    Raises:
        InputError: the disk or the quota is full, a file would become too large, or a file in the directory cannot be
            opened or replaced. The message names directory and cause.
    """
    try:
        yield
    except OSError as error:
        named = isinstance(error.filename, str | bytes | os.PathLike)
        place = Path(os.path.abspath(os.fsdecode(error.filename))).parent if named else directory
        inside = named and directory in (place, *place.parents)
        if error.errno not in NO_ROOM and not inside:
            raise
        raise InputError(
            f"cannot write into {directory if inside else place} ({error.strerror}): make room there or choose another "
            "directory; the checkpoints written so far are whole"
        ) from error


# ------------------------------------------------------------------------------------------------------------- reading


def read_verified_checkpoint(path: Path, wanted: tuple[str, ...], kind: str, part: str) -> dict:
    """Content of a checkpoint, with its tensors on the CPU. Code that the file may contain is not run. PyTorch checks
    no checksums, so they are checked before.

    Args:
        path: the file.
        wanted: keys that it must have.
        kind: of the model, for the message.
        part: that writes such checkpoints, for the message.

    Raises:
        InputError: the file cannot be read, is damaged, of a newer version, or lacks one of the keys.
    """
    damaged = f"{path} is damaged or no checkpoint: choose another one, or train again"
    try:
        with zipfile.ZipFile(path) as archive:
            # No checksum covers the attributes, and of an entry that is marked as a directory PyTorch reads zeros.
            if archive.testzip() is not None or any(entry.external_attr & 0x10 for entry in archive.infolist()):
                raise InputError(damaged)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}): choose another checkpoint") from error
    except Exception as error:  # damage shows in many ways: zip, pickle, Unicode, EOF and runtime errors
        if "maximum supported version" in str(error):
            raise InputError(f"{path} was written by a newer version of PyTorch: update PyTorch to read it") from error
        raise InputError(damaged) from error
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in wanted):
        raise InputError(f"{path} is not a checkpoint of this {kind}: choose one that {part} wrote")
    if (number := checkpoint.get("format", CHECKPOINT_FORMAT)) != CHECKPOINT_FORMAT:
        raise InputError(f"{path} has format {number}, and this version of {part} reads format {CHECKPOINT_FORMAT}: "
                         "read it with the version that wrote it")  # fmt: skip
    return checkpoint

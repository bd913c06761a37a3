"""What every command does alike: errors, numbers and paths in flags, signals, exit codes. The same file in all three
parts.

Only the standard library is imported here, so that `--help` and errors in flags appear at once.
"""

import argparse
import contextlib
import errno
import math
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from streams import guard_streams, occupy_closed_descriptors

HERE = Path(__file__).resolve().parent
# Exit code 128 + number; SIGUSR1 is what SLURM sends before a job's time is over.
STOP_SIGNALS = {getattr(signal, name): name for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)}
WARNED = 138  # exit code after SIGUSR1
NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}  # disk, size of a file, quota
NOT_WRITTEN = NO_ROOM | {errno.EROFS, errno.EACCES, errno.EPERM}  # or the directory is read-only or somebody else's
CHILD_VARIABLE = "TRAINING_PROCESS"  # tells a process that processes.py started which one it is


class InputError(Exception):
    """The user's input cannot be used. The message is one sentence that says what is wrong and what to do."""


class NoDataError(InputError):
    """MNIST is not on the disk and cannot be downloaded."""


class NotFiniteError(InputError):
    """A loss became NaN or infinite."""


class Stopped(SystemExit):
    """A signal ends the command; `code` is the exit code."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Prints the default of every flag but None: there, the help says what happens without the flag."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line, without the list of flags."""

    def __init__(self, prog: str, description: str):
        super().__init__(prog, description=description, formatter_class=HelpFormatter)

    def error(self, message: str):
        complain(self.prog, f"{message} (--help lists the flags)")
        self.exit(2)


def exit_if_bad(check: Callable, args: argparse.Namespace, parser: Parser) -> None:
    """End the program, with exit code 2, if `check(args)` raises InputError."""
    try:
        check(args)
    except InputError as error:
        parser.error(str(error))


def check_whole_numbers(args: argparse.Namespace, limits: dict[str, tuple[int, int]]) -> None:
    """Raises InputError for the first flag that is no whole number from its least to its greatest value."""
    for name, (least, most) in limits.items():
        value = getattr(args, name)
        if not isinstance(value, int) or value < least:
            raise InputError(f"--{name} must be a whole number of at least {least}, not {value}")
        if value > most:
            raise InputError(f"--{name} must be a whole number of at most {most}, not {value}")


def check_positive(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Raises InputError for the first flag that is no positive, finite number."""
    for name in names:
        value = getattr(args, name)
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise InputError(f"--{name} must be a positive number, not {value}")


def check_devices_flag(devices: str | int) -> None:
    """Raises InputError unless `--devices` is 'auto' or a number of devices that one machine can have."""
    text = str(devices)
    if text != "auto" and not (text.isascii() and text.isdecimal() and len(text) < 5 and int(text) >= 1):
        raise InputError(f"--devices must be 'auto' or a whole number from 1 to 9999, not {text}")


def check_choices(args: argparse.Namespace, choices: dict[str, Iterable[str]]) -> None:
    """Raises InputError for the first flag whose value is none of its choices."""
    for name, allowed in choices.items():
        if (value := getattr(args, name)) not in allowed:
            raise InputError(f"--{name} must be one of {', '.join(allowed)}, not {value}")


# --------------------------------------------------------------------------------------------------------------- paths


def check_paths(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Raises InputError for the first flag whose value, unless it is None, cannot be a path."""
    for name in names:
        if (value := getattr(args, name)) is not None:
            if not str(value):
                raise InputError(f"--{name} must not be empty: give a value, or leave the flag out")
            try:
                resolve_path(value)
            except InputError as error:
                raise InputError(f"--{name}: {error}") from error


def resolve_path(path: str | Path, default: str | None = None) -> Path:
    """Absolute form of `path`.

    The course's relative `default` starts in this directory, so that a script may be run from anywhere; every other
    path starts in the current directory. Symbolic links are kept, so that files appear where the user sees the
    directory, except in front of `..`, which belongs to a link's target.

    Raises:
        InputError: `~` stands for a user that there is not, or no file can have this name.
    """
    if default is not None and Path(path) == Path(default):
        path = HERE / path
    if not str(path) or "\0" in str(path):
        raise InputError("no file has an empty name, or one with a zero byte: give another path")
    try:
        path = Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise InputError(f"{path} begins with a user who has no home directory here: give the whole path") from error
    except FileNotFoundError as error:
        raise InputError("the current directory does not exist any more: change to another one") from error
    if ".." in path.parts:
        end = len(path.parts) - path.parts[::-1].index("..")
        path = Path(os.path.realpath(Path(*path.parts[:end])), *path.parts[end:])
    return path


def ensure_writable(directory: Path, flag: str, keep: bool = True) -> None:
    """Create a directory; unless it is to `keep`, what was created is removed again. Raises InputError, which names the
    flag to change, if nothing can be written into it."""
    created = []
    try:
        missing = directory
        while not os.path.lexists(missing) and missing != missing.parent:
            created.append(missing)
            missing = missing.parent
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        keep = False
        raise InputError(f"cannot write into {directory} ({error.strerror}): give another {flag}") from error
    finally:
        for path in created if not keep else ():
            with contextlib.suppress(OSError):  # it was not created, or another process uses it by now
                path.rmdir()


def newest_file(directory: Path, parent: str, name: str) -> Path | None:
    """The file `parent/name` below a directory that was written last. Symbolic links to directories are followed."""
    found, seen = [], set()
    for place, directories, files in os.walk(directory, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # links can form a circle
            directories.clear()
        elif name in files and os.path.basename(place) == parent and os.path.isfile(file := os.path.join(place, name)):
            found.append(Path(file))
        seen.add(real)
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def file_version(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced; None where there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


# -------------------------------------------------------------------------------------------------------------- errors


def complain(prog: str, message: object, kind: str = "error: ") -> None:
    """Print one line about an error on stderr; of several processes, the first one prints."""
    if first_process():
        escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(message))
        if len(escaped) > 2000:
            escaped = f"{escaped[:1000]} ... {escaped[-1000:]}"
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(f"{prog}: {kind}{escaped}", file=sys.stderr, flush=True)


def first_process() -> bool:
    """Whether this process speaks for its training. Before it is known how many there are, srun's or torchrun's word
    counts for a command with `--devices` or `--num_nodes`."""
    if state.rank is not None:
        return state.rank == 0
    if CHILD_VARIABLE in os.environ:
        return False
    several = any(word.startswith(("--dev", "--num_n")) for word in sys.argv)
    step = os.environ.get("SLURM_PROCID") if "SLURM_STEP_ID" in os.environ else None
    return not several or (os.environ.get("RANK") or step or "0") == "0"


# ------------------------------------------------------------------------------------------------------------- signals


class State:
    """What signals and other processes have told this one.

    Attributes:
        received: the signal that ends the command; None: none has come.
        waits: a training is going on, which calls `raise_if_stopped` before each batch.
        over: the command has ended, and Python is about to.
        rank: number of this process among those of the training; None: not known yet.
        children: processes that this one has started (`subprocess.Popen`).
        at_start: keeps the handlers of `start` in their place.
    """

    received: int | None = None
    waits = False
    over = False
    rank: int | None = None
    children: tuple = ()
    at_start: contextlib.AbstractContextManager | None = None


state = State()


def raise_if_stopped() -> None:
    """Raises Stopped if a signal has come."""
    if state.received is not None:
        raise Stopped(128 + state.received)


@contextlib.contextmanager
def stops_as_such() -> Iterator[None]:
    """Context in which every exception after a signal is Stopped: torch.save, for one, turns it into a RuntimeError."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Stopped):
            raise_if_stopped()
        raise


@contextlib.contextmanager
def signals_handled_by(handler: Callable) -> Iterator[None]:
    """Context in which `handler` gets the signals that end a command; those that the shell lets it ignore stay ignored.
    Nothing changes in a thread other than the main one."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


def start(parse: Callable = lambda: None) -> argparse.Namespace:
    """What a script does before it imports PyTorch: make its streams safe, end with a sentence if it is interrupted
    during the imports, and return its parsed flags."""
    occupy_closed_descriptors()
    guard_streams()
    prog = os.path.basename(sys.argv[0])

    def end(number: int, frame) -> None:
        if not state.over:
            complain(prog, f"{STOP_SIGNALS[number]} came before the work began: nothing was written", kind="")
        os._exit(128 + number)

    state.at_start = signals_handled_by(end)
    state.at_start.__enter__()  # for good: the command has its own handlers
    return parse()


def run_command(function: Callable, args: argparse.Namespace, prog: str) -> int:
    """Call `function(args)` and return the exit code of a command: 0; 2 after one sentence about input that cannot be
    used; 128 + number after a signal, of which a second one ends the process at once.

    In a training a signal raises nothing by itself: Python drops what is raised in a destructor, and PyTorch replaces
    what is raised in the middle of a checkpoint."""
    owner = os.getpid()

    def stop(number: int, frame) -> None:
        if os.getpid() != owner:  # a forked worker process, which Ctrl-C reaches, too; the training ends it
            return None if number == signal.SIGINT else os._exit(128 + number)
        if state.received is not None:
            for child in state.children:
                child.kill()
            os._exit(128 + number)
        state.received = number
        if not state.waits:
            raise Stopped(128 + number)
        if first_process():
            with contextlib.suppress(OSError):  # a print could be what the signal has interrupted
                os.write(2, f"{prog}: {STOP_SIGNALS[number]} ends it after this step, a second one at once\n".encode())

    streams, state.received, state.over = (sys.stdout, sys.stderr), None, False
    guard_streams()
    try:
        with signals_handled_by(stop), stops_as_such():
            function(args)
    except InputError as error:
        complain(prog, error)
        return 2
    except MemoryError:
        complain(prog, "the memory of this machine does not suffice: lower the sizes that the flags ask for")
        return 2
    except OSError as error:
        if error.errno not in NOT_WRITTEN:
            raise
        file = error.filename or "a file"
        complain(prog, f"cannot write {file} ({error.strerror}): make room there, or give another directory")
        return 2
    except (KeyboardInterrupt, Stopped) as end:
        code = end.code if isinstance(end, Stopped) else 130
        if not getattr(end, "explained", False):
            name = STOP_SIGNALS.get(code - 128, "a signal")
            complain(prog, f"{name} ended it before it was done: the same command starts it again", kind="")
        return code
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = streams
        state.received, state.over = None, True
    return 0

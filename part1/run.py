"""What a training needs besides its model: flags, a run directory, whole files, errors in one sentence. The same file
in all three parts. Libraries are imported where they are needed, so that errors in flags appear at once."""

import argparse
import contextlib
import ctypes
import difflib
import itertools
import json
import logging
import math
import os
import platform
import re
import shlex
import shutil
import signal
import sys
import threading
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent


class InputError(Exception):
    """The user's input cannot be used. The message is one sentence that says what is wrong and what to do."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose help has all defaults; argparse.SUPPRESS means None."""

    def __init__(self, prog: str, description: str):
        formatter = argparse.ArgumentDefaultsHelpFormatter
        super().__init__(prog, description=description, formatter_class=formatter, allow_abbrev=False)
        self.raises = False  # in a notebook, an error must not end the process

    def error(self, message: str):
        if self.raises:
            raise InputError(message)
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (--help lists the flags)\n")

    def parse_given(self, argv: list[str] | None = None) -> argparse.Namespace:
        """The flags of a command line; None where a flag was not given."""
        if argv is None and "matplotlib" not in sys.modules:
            os.environ["MPLBACKEND"] = "agg"  # a notebook's, which commands inherit, need not be there
        return self.parse_args(argv, argparse.Namespace(**{action.dest: None for action in self._actions}))

    def default_flags(self) -> dict[str, object]:
        """The defaults of all flags but `help` and `resume`."""
        defaults = {action.dest: action.default for action in self._actions if action.dest not in ("help", "resume")}
        return {name: None if value is argparse.SUPPRESS else value for name, value in defaults.items()}

    def given_flags(self, args: argparse.Namespace) -> dict[str, object]:
        """The flags in a namespace that are not None, checked as on a command line. Raises InputError where a name is
        no flag, or a value cannot be used."""
        actions, words = {action.dest: action for action in self._actions}, []
        for name, value in vars(args).items():
            if name not in actions:
                nearest = difflib.get_close_matches(name, actions, n=1, cutoff=0)[0]
                raise InputError(f"{name} is no flag of {self.prog}: the nearest is {nearest}")
            flag, *others = actions[name].option_strings
            if isinstance(value, bool):
                words += [flag] if value else [word for word in others if word.startswith("--no-")]
            elif isinstance(value, list | tuple) and actions[name].nargs:
                words += [flag, *map(str, value)]
            elif value is not None:
                words += [f"{flag}={each}" for each in (value if isinstance(value, list | tuple) else [value])]
        self.raises = True
        return {name: value for name, value in vars(self.parse_given(words)).items() if value is not None}


def number(meaning: str, allowed: Callable[[float], bool], kind: type = float) -> Callable[[str], float]:
    """A type for argparse: the finite numbers that are `allowed`. `meaning` is for the message, such as "above 0"."""

    def convert(text: str) -> float:
        with contextlib.suppress(ValueError):
            if math.isfinite(kind(text)) and allowed(kind(text)):
                return kind(text)
        raise argparse.ArgumentTypeError(f"must be a {'whole ' * (kind is int)}number {meaning}, not {text}")

    return convert


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers from `least` to `most`."""
    return number(f"from {least} to {most}", lambda value: least <= value <= most, int)


def path(text: str) -> str:
    """A type for argparse: a path, made absolute. A relative one starts in the current directory."""
    with contextlib.suppress(RuntimeError, OSError):  # no such user, or no current directory
        if text:
            return str(Path(text).expanduser().absolute())
    raise argparse.ArgumentTypeError(f"{text!r} is no path here: give the whole path")


def resolve_args(
    args: argparse.Namespace, parser: Parser, fixed: tuple[str, ...], checkpoint: str, read: Callable[[Path], dict]
) -> tuple[argparse.Namespace, Path | None, dict | None]:
    """Complete a training's flags: what `args` holds, else what the run to resume was started with, else the default.
    The run is resumed from the file `checkpoint` in its directory, whose content `read` returns. It keeps the flags in
    `fixed`: with other values, no uninterrupted run could reproduce it. Returns all flags but `resume`, and directory
    and checkpoint of the run to resume, or None and None."""
    given, flags = parser.given_flags(args), parser.default_flags()
    if (run := given.pop("resume", None)) is None:
        return argparse.Namespace(**{**flags, **given}), None, None
    run_dir = find_run(run, Path(given.get("log_dir", flags["log_dir"])), checkpoint)
    saved = read(run_dir / checkpoint)
    for name in fixed:
        if (new := given.get(name)) not in (None, old := {**flags, **saved["flags"]}[name]):
            raise InputError(f"--{name} {new} was given, but the run to resume was started with --{name} {old}: leave "
                             "the flag out, or start a new run without --resume")  # fmt: skip
    return argparse.Namespace(**{**flags, **saved["flags"], **given}), run_dir, saved


def find_run(run: str, log_dir: Path, file: str) -> Path:
    """Directory of a run that holds `file`: given by path, by name in `log_dir`, or as "newest". Raises InputError."""
    places = [Path(os.path.expanduser(run)), log_dir / "lightning_logs" / run, log_dir / run]
    if run == "newest":
        places = [place.parents[1] for place in sorted(log_dir.rglob(file), key=os.path.getmtime)[-1:]]
    if found := [place for place in places if (place / file).is_file()]:
        return found[0].absolute()
    raise InputError(f"{run}: no such run with a checkpoint, neither as a path nor in {log_dir}: name a run directory")


@contextlib.contextmanager
def open_run(runs: Path, run_dir: Path | None) -> Iterator[Path]:
    """Context in which this process alone writes into a run directory: a new `runs/version_N`, or that of a run to
    resume. If it is stopped, a message says how to go on. Raises InputError where another process writes into it."""
    from filelock import FileLock, Timeout

    if run_dir is None:
        runs.mkdir(parents=True, exist_ok=True)
        for version in itertools.count():  # of several runs that start together, each gets its own
            run_dir = runs / f"version_{version}"
            with contextlib.suppress(FileExistsError):
                run_dir.mkdir()
                break
    lock = FileLock(run_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"a training of {run_dir} is going on: wait for its end, or start a new run") from error
    try:
        for file in [*run_dir.rglob(".*.tmp"), run_dir / "summary.json"]:
            file.unlink(missing_ok=True)  # of a killed process; and a resumed run is not complete any more
        yield run_dir
    except (KeyboardInterrupt, SystemExit):
        command = shlex.join([sys.executable, str(HERE / "train.py"), "--resume", str(run_dir)])
        command = f"continue with {command}" if any(run_dir.glob("checkpoints/*")) else "there is no checkpoint yet"
        print(f"\nstopped; {command}", flush=True)
        raise
    except OSError as error:
        error.filename = error.filename or run_dir  # TensorBoard does not say where a disk is full
        raise
    finally:
        lock.release()
        if {file.name for file in run_dir.iterdir()} <= {".lock"}:  # nothing was written
            shutil.rmtree(run_dir)


def atomic_write(file: Path, content: bytes | str) -> None:
    """Replace a file in one step: it has its old or its new content, never a part. Raises InputError if it cannot."""
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")  # unique: other processes may write this file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InputError(f"cannot write {file} ({error.strerror}): make room or choose another directory; all files "
                         "written before are whole") from error  # fmt: skip


def read_checkpoint(file: Path, wanted: tuple[str, ...], part: str) -> dict:
    """Content of a checkpoint of `part`, which has all `wanted` keys, with its tensors on the CPU. Code in the file is
    not run. PyTorch checks no checksums, so they are checked before. Raises InputError."""
    import torch

    try:
        with zipfile.ZipFile(file) as archive:
            # No checksum covers the attributes, and of an entry that is marked as a directory PyTorch reads zeros.
            if archive.testzip() or any(entry.external_attr & 0x10 for entry in archive.infolist()):
                raise zipfile.BadZipFile
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows in many ways: zip, pickle, Unicode, EOF and runtime errors
        reason = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else "is damaged or no checkpoint"
        raise InputError(f"{file} {reason}: choose another one, or train again") from error
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in wanted):
        raise InputError(f"{file} is not a checkpoint of {part}: choose one that {part} wrote")
    return checkpoint


def write_summary(run_dir: Path, args: argparse.Namespace, results: dict) -> None:
    """Write `summary.json`: the results, and the flags and versions behind them. A run that has it is complete."""
    versions = {name: metadata.version(name) for name in ("torch", "torchvision", "pytorch-lightning", "numpy")}
    summary = {**results, "seed": args.seed, "flags": vars(args), "command": shlex.join(["python", *sys.argv]),
               "versions": {**versions, "python": platform.python_version()},
               "finished": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip
    atomic_write(run_dir / "summary.json", json.dumps(summary, indent=2) + "\n")


def device_name(device) -> str:
    """Name of a GPU, or of the CPU with its number of threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    cpu = re.search("model name.*: (.*)|$", cpuinfo)[1] or platform.machine()
    return f"{cpu} ({device.type}, {torch.get_num_threads()} threads)"


def cluster_environment(args: argparse.Namespace) -> list:
    """Lightning's plugins for the processes of a training. One device needs none: what SLURM or torchrun left in the
    environment does not matter. Lightning does not put a SLURM job back into the queue; `train.job` does."""
    from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    started = int(os.environ["WORLD_SIZE"]) if TorchElasticEnvironment.detect() else 1
    if args.devices == args.num_nodes == 1:
        if started > 1:
            raise InputError(f"torchrun has started {started} processes: give --devices {started} --strategy ddp")
        rank_zero_only.rank = 0
        return [LightningEnvironment()]
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() and started == 1 else []


def run_command(command: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> int:
    """Call `command(args)`, and return the exit code: 0; 2 after one sentence about what cannot be used; 130 or 143
    after Ctrl-C or SIGTERM; 141 if nobody reads the output any more (`| head`)."""
    import torch

    undo = contextlib.ExitStack()  # what is set here is put back: a notebook goes on
    for name in ("stdout", "stderr"):  # None: closed by the shell (`>&-`), and the next file would take its place
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115, open until the end
        setattr(sys, name, stream)
        if hasattr(stream, "reconfigure"):  # a notebook's has not
            undo.callback(stream.reconfigure, errors=stream.errors, line_buffering=stream.line_buffering)
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        undo.callback(signal.signal, number, signal.getsignal(number))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    undo.callback(torch.set_flush_denormal, False)
    torch.set_flush_denormal(True)  # numbers below 1e-38 occur in gradients, and are slow on a CPU
    torch.set_float32_matmul_precision("high")  # on a GPU, factors are rounded to the 10 bits of TF32
    if platform.libc_ver()[0] == "glibc":  # keep freed memory: the system would have to clear it again in each step
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, libc = -1, -3, ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)  # most before glibc 2.35
    undo.callback(logging.disable, logging.NOTSET)
    logging.disable(logging.INFO)  # Lightning's notes on unused hardware
    undo.callback(setattr, threading, "excepthook", threading.excepthook)
    threading.excepthook = lambda thread: None  # TensorBoard's: its error is raised again where events are flushed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            command(args)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KeyboardInterrupt, SystemExit) as stop:
        code = getattr(stop, "code", 1)  # 1 is Lightning's after Ctrl-C, too
        return 130 if code == 1 else code
    except Exception as error:
        if (sentence := explain(error)) is None:
            raise
        print(f"{Path(sys.argv[0]).name}: error: {sentence}", file=sys.stderr)
        return 2
    finally:
        undo.close()
    return 0


def explain(error: Exception) -> str | None:
    """One sentence about an error that the user can do something about; None for any other."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if isinstance(error, InputError):
        socks = re.search("(?i)(all|https?)_proxy(?==socks)", " ".join(map("=".join, os.environ.items())))
        note = f" ({socks[0]} names a socks proxy, which cannot be used)" if socks and "download" in str(error) else ""
        return " ".join(str(error).split()) + note
    if isinstance(error, MemoryError) or re.search("(not enough|out of|allocate) memory|alloc_cpu", str(error)):
        return f"the memory does not suffice ({reason}): lower the sizes that the flags ask for"
    if type(error).__name__ in ("InductorError", "BackendCompilerFailed", "InvalidCxxCompiler", "TritonMissing"):
        return f"--compile: PyTorch cannot compile the model here ({reason}): leave it out"
    if "in Lightning, but" in reason:  # SLURM or torchrun has started another number of processes
        return f"--devices or --num_nodes: {reason}"
    if "DataLoader" in reason:
        return f"a process that loads data has failed ({reason}): give --num_workers 0"
    if isinstance(error, OSError):
        return f"cannot use {error.filename or 'a file'} ({error.strerror or reason}): make room, or give another one"
    return None

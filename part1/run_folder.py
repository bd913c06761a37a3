"""The folder of a run: what is written into it while it trains, and how to find and read it again."""

import argparse
import ctypes
import json
import logging
import os
import platform
import shlex
import statistics
import subprocess
import sys
import uuid
import warnings
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from inputs import HERE, InputError, given_again

RUNS = "lightning_logs"
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "numpy")


class OneStepCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint in one step. Lightning's own is written in the folder for temporary files, from which it is
    copied over the old one where that is another file system."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options=None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(path), lambda file: torch.save(checkpoint, file), mode="wb")


def write_whole(path: Path, write, mode: str = "w") -> None:
    """Replace a file in one step, so that an interruption leaves the old or the new one and never a half."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # as other machines may write the same file
    newline, encoding = (None, None) if "b" in mode else ("", "utf-8")
    try:
        with open(temporary, mode, newline=newline, encoding=encoding) as file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_summary(folder: Path, args, trainer: pl.Trainer, record, best_epoch: int, results: dict) -> None:
    """Write `summary.json`: results, and what they were obtained with. Where it exists, the run is complete."""
    summary = {
        **results,
        "best_epoch": best_epoch,
        "best_val_bpd": record.rows[best_epoch - 1]["val_bpd"],
        "train_bpd": record.rows[-1]["train_bpd"],
        "epochs": len(record.rows),
        "train_seconds": round(sum(record.seconds), 1),
        "median_epoch_seconds": round(statistics.median(record.seconds), 2),
        "device": device_name(trainer.strategy.root_device),
        "num_devices": trainer.num_devices * trainer.num_nodes,
        "seed": args.seed,
        "flags": record.flags,
        "command": shlex.join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_whole(folder / "summary.json", lambda file: file.write(json.dumps(summary, indent=2) + "\n"))


def device_name(device: torch.device) -> str:
    """Name of the processor a run used, with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
    return f"{name} ({device.type}, {torch.get_num_threads()} threads)"


def devices_of(trainer: pl.Trainer) -> str:
    """What a training runs on, in words."""
    count = trainer.num_devices * trainer.num_nodes
    return ("" if count == 1 else f"{count} x ") + device_name(trainer.strategy.root_device)


def find_checkpoint(run: str, log_dir: Path, which: str) -> Path:
    """Path of a run's checkpoint.

    Args:
        run: a run's folder, a run's name below `log_dir`, a checkpoint file, or "newest": the last written one in
            `log_dir`, however deep.
        log_dir: folder of all runs.
        which: "best" or "last".

    Raises:
        InputError: there is none.
    """
    if run == "newest":
        found = sorted(log_dir.rglob(f"checkpoints/{which}.ckpt"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise InputError(f"no run in {log_dir} has a checkpoint yet: train one first, or name a run's folder")
        return found[-1]
    for place in (Path(run).expanduser(), log_dir / RUNS / run):
        if place.is_file():
            return place.resolve()
        if (found := place / "checkpoints" / f"{which}.ckpt").is_file():
            return found.resolve()
    raise InputError(
        f"{run} is no run with a checkpoint, neither as a path nor in {log_dir / RUNS}: name a run's folder"
    )


def run_of(checkpoint: Path, flag: str) -> Path:
    """Folder of the run that a checkpoint belongs to.

    Raises:
        InputError: it lies elsewhere, so that what comes of it would be written into the folder of something else; the
            message names the flag to change.
    """
    if checkpoint.parent.name != "checkpoints":
        raise InputError(f"{checkpoint} is not in a run's folder: give the folder of the run to {flag}")
    return checkpoint.parent.parent


def read_checkpoint(path: Path) -> dict:
    """Content of a checkpoint, on the CPU, without running any code that it may hold.

    Raises:
        InputError: the file cannot be read, or was not written by this training.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage in many ways: zip, pickle, EOF and runtime errors
        raise InputError(f"{path} is damaged or no checkpoint: choose another one, or train again") from error
    wanted = ("state_dict", "hyper_parameters", "flags", "epoch")
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in wanted):
        raise InputError(f"{path} is not a checkpoint of this VAE: choose one that part 1 wrote")
    return checkpoint


def how_to_go_on(run: Path, log_dir: Path, args: argparse.Namespace) -> str:
    """What to tell someone who interrupted a run: how much of it is saved, and the command that goes on from there."""
    last = run / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return "interrupted in the first epoch: there is no checkpoint yet, so start again"
    epoch = read_checkpoint(last)["epoch"] + 1
    command = [sys.executable, str(HERE / "train.py"), "--resume", str(run.resolve()), "--log_dir", str(log_dir),
               *given_again(args)]  # fmt: skip
    return f"interrupted, epoch {epoch} is saved: continue with {command_line(command)}"


def command_line(words: list[str]) -> str:
    """The words as the shell takes them: on Windows, cmd.exe."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def logger_place(checkpoint: Path) -> dict:
    """Arguments of a logger that writes into the folder which a run's checkpoint is in."""
    run = checkpoint.parent.parent
    return {"save_dir": run.parent.parent, "name": run.parent.name, "version": run.name}


def wants_bar(asked: bool) -> bool:
    """Whether to show a progress bar: where it was asked for, and on a terminal; not in a SLURM file."""
    return asked or sys.stdout.isatty()


def prepare_processor() -> None:
    """Two settings without which a training step on a CPU takes much longer; call it before any tensor is computed,
    since the threads that compute take the first over when they start.

    A pixel whose class is all but certain has a gradient below 1e-38. Processors work on such denormal numbers in
    microcode, so they are flushed to zero. And glibc hands the memory of freed activations back to the system, which
    must then clear fresh pages in every step, so it is told to keep them.
    """
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
        libc = ctypes.CDLL(None)
        if not libc.mallopt(M_MMAP_THRESHOLD, 1 << 30):
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)  # the most that glibc takes before 2.35
        for parameter, value in ((M_TRIM_THRESHOLD, (1 << 31) - 1), (M_TOP_PAD, 1 << 28)):
            libc.mallopt(parameter, value)


def quieten_lightning() -> None:
    """Leave out Lightning's notes on hardware that is not there and its advice that does not hold here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")

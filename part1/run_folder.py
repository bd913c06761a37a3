"""A run directory: what a training writes into it, and how it is read again."""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from inputs import HERE, InputError, flags_to_repeat

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "numpy")
NOT_RECORDED = ("given", "resume", "checkpoint", "saved", "run_dir")  # settings that describe one start of a run


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint in one step. Lightning's own plugin writes it into the directory for temporary files first
    and copies it from there, which takes more than one step where that is another file system."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options=None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(Path(path), lambda file: torch.save(checkpoint, file), mode="wb")


def atomic_write(path: Path, write, mode: str = "w") -> None:
    """Replace a file in one step: after an interruption it has its old or its new content, never a part.

    Args:
        path: the file.
        write: function that is called with the open temporary file.
        mode: "w" for text, "wb" for bytes.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # unique, since other machines may write this file
    newline, encoding = (None, None) if "b" in mode else ("", "utf-8")
    try:
        with open(temporary, mode, newline=newline, encoding=encoding) as file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def recorded_flags(args: argparse.Namespace) -> dict:
    """The flags as `hparams.yaml`, `summary.json` and checkpoints hold them."""
    return {name: value for name, value in vars(args).items() if name not in NOT_RECORDED}


def write_summary(
    run_dir: Path, args: argparse.Namespace, trainer: pl.Trainer, record, best_epoch: int, results: dict
) -> None:
    """Write `summary.json`: the results, and the flags, versions and machine behind them. A run that has this file is
    complete.

    Args:
        run_dir: the run directory.
        args: the run's settings.
        trainer: tells the devices.
        record: the run's `RunRecord`.
        best_epoch: epoch of the checkpoint that was tested.
        results: the test results.
    """
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
        "flags": recorded_flags(args),
        "command": shlex.join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic_write(run_dir / "summary.json", lambda file: file.write(json.dumps(summary, indent=2) + "\n"))


def read_checkpoint(path: Path) -> dict:
    """Content of a checkpoint, with its tensors on the CPU. Code that the file may contain is not run.

    Raises:
        InputError: the file cannot be read, or part 1's training did not write it.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage in many ways: zip, pickle, EOF and runtime errors
        raise InputError(f"{path} is damaged or no checkpoint: choose another one, or train again") from error
    wanted = ("state_dict", "hyper_parameters", "flags", "epoch")
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in wanted):
        raise InputError(f"{path} is not a checkpoint of this VAE: choose one that part 1 wrote")
    return checkpoint


def logger_location(settings: argparse.Namespace) -> dict:
    """Lightning's logger arguments for the directory of the resumed run, or for a new one in `log_dir`."""
    if settings.run_dir is None:
        return {"save_dir": settings.log_dir}
    run_dir = settings.run_dir
    return {"save_dir": run_dir.parent.parent, "name": run_dir.parent.name, "version": run_dir.name}


def resume_hint(run_dir: Path, settings: argparse.Namespace) -> str:
    """The message after an interruption: the last saved epoch, and the command that resumes the run."""
    last = run_dir / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return "interrupted in the first epoch: there is no checkpoint yet, so start again"
    epoch = read_checkpoint(last)["epoch"] + 1
    command = [sys.executable, str(HERE / "train.py"), "--resume", str(run_dir.resolve()),
               "--log_dir", str(settings.log_dir), *flags_to_repeat(settings)]  # fmt: skip
    return f"interrupted, epoch {epoch} is saved: continue with {shell_command(command)}"


def shell_command(words: list[str]) -> str:
    """The words quoted for the shell; on Windows, for cmd.exe."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def time_left(seconds: list[float], num_epochs: int) -> timedelta:
    """Estimated duration of the remaining epochs, from the median of the last five.

    Args:
        seconds: duration of each finished epoch.
        num_epochs: epochs of the whole training.
    """
    return timedelta(seconds=round(statistics.median(seconds[-5:]) * (num_epochs - len(seconds))))


def device_name(device: torch.device) -> str:
    """Name of the GPU, or of the CPU with its number of threads."""
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
    """Number, if more than one, and name of the devices of a training."""
    count = trainer.num_devices * trainer.num_nodes
    return ("" if count == 1 else f"{count} x ") + device_name(trainer.strategy.root_device)

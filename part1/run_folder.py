"""A run directory: what a training writes into it, and how it is read again."""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytorch_lightning as pl
import torch

from inputs import HERE, InputError, flags_to_repeat
from run_files import atomic_write, read_verified_checkpoint

RECORD = "RunRecord"  # the callback whose rows and seconds a checkpoint holds
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "numpy")
NOT_RECORDED = ("given", "resume", "checkpoint", "version", "saved", "run_dir")  # they describe one start of a run


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
    wanted = ("state_dict", "optimizer_states", "hyper_parameters", "flags", "epoch", "global_step", "callbacks")
    checkpoint = read_verified_checkpoint(path, wanted, kind="VAE", part="part 1")
    if RECORD not in checkpoint["callbacks"]:
        raise InputError(f"{path} is not a checkpoint of this VAE: choose one that part 1 wrote")
    return checkpoint


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

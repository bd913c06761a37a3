"""The run directory: its files, each written in one step, and how a checkpoint is read again."""

import argparse
import csv
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

import torch

from inputs import CHECKPOINT, HERE, InputError, flags_to_repeat
from models import AdversarialAE
from run_files import atomic_write, read_verified_checkpoint

RECONSTRUCTION_GOAL = 0.05  # question 2.5: the reconstruction loss should fall below this
NOT_RECORDED = ("given", "resume", "checkpoint", "version", "saved", "run_dir")
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "numpy")


def recorded_flags(args: argparse.Namespace) -> dict:
    """The flags as they are written into `hparams.json`, the checkpoint and `summary.json`; paths become text."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name not in NOT_RECORDED
    }


def write_json(path: Path, content: dict) -> None:
    """Write indented JSON."""
    atomic_write(path, lambda file: file.write(json.dumps(content, indent=2) + "\n"))


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """Write a CSV file with one row for each epoch."""

    def write(file) -> None:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    atomic_write(path, write)


def write_summary(run_dir: Path, args, rows: list[dict], seconds: list[float], results: dict, machine: dict) -> None:
    """Write `summary.json`: the results, and what produced them. If the file exists, the run is complete.

    Args:
        run_dir: the run directory.
        args: the run's flags.
        rows: metrics of each epoch.
        seconds: duration of each epoch.
        results: final scores.
        machine: `device` and `num_devices`.
    """
    below = [row["epoch"] for row in rows if row["train_recon_loss"] < RECONSTRUCTION_GOAL]
    summary = {
        **results,
        "first_epoch_below_0_05": below[0] if below else None,
        "epochs": len(rows),
        "train_seconds": round(sum(seconds), 1),
        "median_epoch_seconds": round(statistics.median(seconds), 2),
        **machine,
        "seed": args.seed,
        "flags": recorded_flags(args),
        "command": shlex.join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(run_dir / "summary.json", summary)


def write_checkpoint(path: Path, content: dict) -> None:
    """Write a checkpoint in one step."""
    path.parent.mkdir(exist_ok=True)
    atomic_write(path, lambda file: torch.save(content, file), mode="wb")


def read_checkpoint(path: Path) -> dict:
    """Content of a checkpoint, with its tensors on the CPU. Code that the file may contain is not run.

    Raises:
        InputError: the file cannot be read, or part 2's training did not write it.
    """
    wanted = ("state_dict", "hyper_parameters", "optimizer_ae", "optimizer_disc", "precision", "logger_ae",
              "logger_disc", "epoch", "flags", "rows", "seconds")  # fmt: skip
    return read_verified_checkpoint(path, wanted, kind="adversarial autoencoder", part="part 2")


def load_aae(path: Path) -> tuple[AdversarialAE, dict]:
    """The model of a checkpoint, on the CPU and in evaluation mode, and the checkpoint's content.

    Raises:
        InputError: the file cannot be read, or is not a checkpoint of this model.
    """
    checkpoint = read_checkpoint(path)
    try:
        model = AdversarialAE(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} is a checkpoint of another model than this adversarial autoencoder: choose one that part 2 wrote"
        ) from error
    return model.eval(), checkpoint


def resume_hint(run_dir: Path, settings: argparse.Namespace) -> str:
    """The message after an interruption: the last saved epoch, and the command that resumes the run."""
    if not (run_dir / CHECKPOINT).is_file():
        return "interrupted in the first epoch: there is no checkpoint yet, so start again"
    epoch = read_checkpoint(run_dir / CHECKPOINT)["epoch"]
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

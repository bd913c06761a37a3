"""The folder of a run: what is written into it while it trains, and how to find and read it again."""

import argparse
import csv
import ctypes
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

import torch

from inputs import HERE, InputError, given_again
from models import AdversarialAE

CHECKPOINT = Path("checkpoints", "model_checkpoint.pt")
RECONSTRUCTION_GOAL = 0.05  # the reference of the assignment for the training's reconstruction loss
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "numpy")


def new_run(log_dir: Path) -> Path:
    """Create the folder of a new run, `log_dir/version_N` with the lowest N above all that exist."""
    taken = [int(path.name[8:]) for path in log_dir.glob("version_*") if path.name[8:].isdecimal()]
    number = max(taken, default=-1) + 1
    while True:
        folder = log_dir / f"version_{number}"
        try:
            folder.mkdir()
        except FileExistsError:  # another run that was started at the same time has it
            number += 1
        else:
            return folder


def flags_of(args: argparse.Namespace) -> dict:
    """The flags that belong into a run's record."""
    return {name: value for name, value in vars(args).items() if name not in ("given", "resume")}


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


def write_json(path: Path, content: dict) -> None:
    write_whole(path, lambda file: file.write(json.dumps(content, indent=2) + "\n"))


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """One line an epoch."""

    def write(file) -> None:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    write_whole(path, write)


def write_summary(folder: Path, args, rows: list[dict], seconds: list[float], results: dict, machine: dict) -> None:
    """Write `summary.json`: results, and what they were obtained with. Where it exists, the run is complete."""
    below = [row["epoch"] for row in rows if row["train_recon_loss"] < RECONSTRUCTION_GOAL]
    summary = {
        **results,
        "first_epoch_below_0_05": below[0] if below else None,
        "epochs": len(rows),
        "train_seconds": round(sum(seconds), 1),
        "median_epoch_seconds": round(statistics.median(seconds), 2),
        **machine,
        "seed": args.seed,
        "flags": flags_of(args),
        "command": shlex.join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / "summary.json", summary)


def time_left(seconds: list[float], num_epochs: int) -> timedelta:
    """Estimate for the rest of a training of so many epochs, from the seconds that the latest ones took."""
    return timedelta(seconds=round(statistics.median(seconds[-5:]) * (num_epochs - len(seconds))))


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


def find_checkpoint(run: str, log_dir: Path) -> Path:
    """Path of a run's checkpoint.

    Args:
        run: a run's folder, a run's name below `log_dir`, a checkpoint file, or "newest": the last written one in
            `log_dir`, however deep.
        log_dir: folder of all runs.

    Raises:
        InputError: there is none.
    """
    if run == "newest":
        found = sorted(log_dir.rglob(str(CHECKPOINT)), key=lambda path: path.stat().st_mtime)
        if not found:
            raise InputError(f"no run in {log_dir} has a checkpoint yet: train one first, or name a run's folder")
        return found[-1]
    for place in (Path(run).expanduser(), log_dir / run):
        if place.is_file():
            return place.resolve()
        if (found := place / CHECKPOINT).is_file():
            return found.resolve()
    raise InputError(f"{run} is no run with a checkpoint, neither as a path nor in {log_dir}: name a run's folder")


def run_of(checkpoint: Path, flag: str) -> Path:
    """Folder of the run that a checkpoint belongs to.

    Raises:
        InputError: it lies elsewhere, so that what comes of it would be written into the folder of something else; the
            message names the flag to change.
    """
    if checkpoint.parent.name != CHECKPOINT.parent.name:
        raise InputError(f"{checkpoint} is not in a run's folder: give the folder of the run to {flag}")
    return checkpoint.parent.parent


def write_checkpoint(path: Path, content: dict) -> None:
    """Write a checkpoint in one step."""
    path.parent.mkdir(exist_ok=True)
    write_whole(path, lambda file: torch.save(content, file), mode="wb")


def read_checkpoint(path: Path) -> dict:
    """Content of a checkpoint, on the CPU, without running any code that it may hold.

    Raises:
        InputError: the file cannot be read, or was not written by this training.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage in many ways: zip, pickle, EOF and runtime errors
        raise InputError(f"{path} is damaged or no checkpoint: choose another one, or train again") from error
    wanted = ("state_dict", "hyper_parameters", "optimizer_ae", "optimizer_disc", "epoch", "flags", "rows")
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in wanted):
        raise InputError(f"{path} is not a checkpoint of this adversarial autoencoder: choose one that part 2 wrote")
    return checkpoint


def load_aae(path: Path) -> tuple[AdversarialAE, dict]:
    """Model and checkpoint of `path`.

    Raises:
        InputError: the file is missing, damaged, or not a checkpoint of this model.
    """
    checkpoint = read_checkpoint(path)
    try:
        model = AdversarialAE(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{path} is a checkpoint of another model than this adversarial autoencoder: choose one that part 2 wrote"
        ) from error
    return model.eval(), checkpoint


def how_to_go_on(run: Path, log_dir: Path, args: argparse.Namespace) -> str:
    """What to tell someone who interrupted a run: how much of it is saved, and the command that goes on from there."""
    if not (run / CHECKPOINT).is_file():
        return "interrupted in the first epoch: there is no checkpoint yet, so start again"
    epoch = read_checkpoint(run / CHECKPOINT)["epoch"]
    command = [sys.executable, str(HERE / "train.py"), "--resume", str(run.resolve()), "--log_dir", str(log_dir),
               *given_again(args)]  # fmt: skip
    return f"interrupted, epoch {epoch} is saved: continue with {command_line(command)}"


def command_line(words: list[str]) -> str:
    """The words as the shell takes them: on Windows, cmd.exe."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def wants_bar(asked: bool) -> bool:
    """Whether to show a progress bar: where it was asked for, and on a terminal; not in a SLURM file."""
    return asked or sys.stdout.isatty()


def prepare_processor() -> None:
    """Two settings that keep training steps on a CPU fast; call it before any tensor is computed, since the threads
    that compute take the first over when they start.

    Gradients that vanish in a saturated tanh or in the moments of Adam can fall below 1e-38. Processors work on such
    denormal numbers in microcode, so they are flushed to zero. And glibc hands the memory of freed activations back to
    the system, which must then clear fresh pages in every step, so it is told to keep them.
    """
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
        libc = ctypes.CDLL(None)
        if not libc.mallopt(M_MMAP_THRESHOLD, 1 << 30):
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)  # the most that glibc takes before 2.35
        for parameter, value in ((M_TRIM_THRESHOLD, (1 << 31) - 1), (M_TOP_PAD, 1 << 28)):
            libc.mallopt(parameter, value)

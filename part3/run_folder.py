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

from gpt import GPT
from inputs import InputError
from vocabulary import Vocabulary, from_state

RUNS = "lightning_logs"
GOALS = (2.0, 1.8, 1.6, 1.5)  # validation losses in nats whose first step and time the summary states
PACKAGES = ("torch", "pytorch-lightning", "numpy", "tokenizers", "safetensors")
CONFIG = ("n_layer", "n_head", "n_embd", "vocab_size", "block_size", "embd_pdrop", "resid_pdrop", "attn_pdrop",
          "layer_norm_epsilon", "tie_weights")  # fmt: skip


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


def write_summary(folder: Path, args, trainer: pl.Trainer, record, results: dict) -> None:
    """Write `summary.json`: results, and what they were obtained with. Where it exists, the run is complete."""
    rows = record.rows
    best = min(rows, key=lambda row: row["val_loss"])
    reached = {}
    for goal in GOALS:
        row = next((row for row in rows if row["val_loss"] < goal), None)
        name = f"{goal:.2f}".replace(".", "_")
        reached[f"steps_to_val_loss_below_{name}"] = row and row["step"]
        reached[f"seconds_to_val_loss_below_{name}"] = row and round(row["seconds"], 1)
    summary = {
        **{f"best_{name}": best[name] for name in ("val_loss", "val_bpc", "val_acc")},
        "best_step": best["step"],
        **{name: rows[-1][name] for name in ("train_loss", "train_acc", "val_loss", "val_bpc", "val_acc")},
        **results,
        **reached,
        "steps": rows[-1]["step"],
        "tokens": rows[-1]["step"] * record.tokens_per_step,
        "train_seconds": round(rows[-1]["seconds"], 1),
        "median_tokens_per_second": round(statistics.median(row["tokens_per_second"] for row in rows)),
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


def command_line(words: list[str]) -> str:
    """The words as the shell takes them: on Windows, cmd.exe."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def find_checkpoint(run: str, log_dir: Path, which: str) -> Path:
    """Path of a run's checkpoint.

    Args:
        run: a run's folder, a run's name below `log_dir`, a checkpoint file, or "newest".
        log_dir: folder of all runs.
        which: "best" or "last".

    Raises:
        InputError: there is none.
    """
    if run == "newest":
        found = sorted(log_dir.rglob(f"{RUNS}/*/checkpoints/{which}.ckpt"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise InputError(f"no run in {log_dir} has a checkpoint yet: train one first, or name a run's folder")
        return found[-1]
    for place in (Path(os.path.expanduser(run)), log_dir / RUNS / run):
        if place.is_file():
            return place.resolve()
        if (found := place / "checkpoints" / f"{which}.ckpt").is_file():
            return found.resolve()
    raise InputError(
        f"{run} is no run with a checkpoint, neither as a path nor in {log_dir / RUNS}: name a run's folder"
    )


def config_of(model: GPT) -> dict:
    """What `load_gpt` needs to set the model up again."""
    return {name: value for name, value in vars(model.config).items() if name in CONFIG}


def run_of(checkpoint: Path, flag: str) -> Path:
    """Folder of the run that a checkpoint belongs to.

    Raises:
        InputError: it lies elsewhere, so that what comes of it would be written into the folder of something else; the
            message names the flag to change.
    """
    if checkpoint.parent.name != "checkpoints":
        raise InputError(f"{checkpoint} is not in a run's folder: give the folder of the run to {flag}")
    return checkpoint.parent.parent


def load_gpt(path: Path) -> tuple[GPT, Vocabulary, dict]:
    """Model, vocabulary and checkpoint of `path`, on the CPU, without running any code that the file may hold.

    Raises:
        InputError: the file cannot be read, or was not written by this training.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage in many ways: zip, pickle, EOF and runtime errors
        raise InputError(f"{path} is damaged or no checkpoint: choose another one, or train again") from error
    wanted = ("state_dict", "gpt_config", "vocabulary", "flags", "text_sha256", "global_step")
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in wanted):
        raise InputError(f"{path} is not a checkpoint of this GPT: choose one that part 3 wrote")
    try:
        model = GPT(argparse.Namespace(**checkpoint["gpt_config"]))
        weights = {name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()}
        model.load_state_dict(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} is a checkpoint of another model than this GPT: choose one that part 3 wrote"
        ) from error
    return model.eval(), from_state(checkpoint["vocabulary"]), checkpoint


def logger_place(checkpoint: Path) -> dict:
    """Arguments of a logger that writes into the folder which a run's checkpoint is in."""
    run = checkpoint.parent.parent
    return {"save_dir": run.parent.parent, "name": run.parent.name, "version": run.name}


def wants_bar(asked: bool) -> bool:
    """Whether to show a progress bar: where it was asked for, and on a terminal; not in a SLURM file."""
    return asked or sys.stdout.isatty()


def prepare_processor() -> None:
    """Two settings that keep training steps on a CPU fast; call it before any tensor is computed, since the threads
    that compute take the first over when they start.

    Numbers below 1e-38, as in the moments of Adam, are worked on in microcode, so they are flushed to zero. And glibc
    hands the memory of freed activations back to the system, which must then clear fresh pages in every step, so it is
    told to keep them.
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
    for advice in (
        ".*LeafSpec.*",
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*is not a nn.Module.*",
        ".*across ranks is zero.*",
    ):
        warnings.filterwarnings("ignore", advice)

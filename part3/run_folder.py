"""A run directory: what a training writes into it, and how it is read again. PyTorch Lightning is not needed here."""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from gpt import GPT
from inputs import HERE, InputError, flags_to_repeat
from run_files import atomic_write, read_verified_checkpoint
from vocabulary import Vocabulary, from_state

GOALS = (2.0, 1.8, 1.6, 1.5)  # the summary has the step and the time at which the validation loss falls below each
NOT_RECORDED = ("given", "resume", "checkpoint", "version", "saved", "run_dir")  # they describe one start of a run
RECORD = "RunRecord"  # the callback whose rows a checkpoint holds
PACKAGES = ("torch", "pytorch-lightning", "numpy", "tokenizers", "safetensors")
CONFIG = ("n_layer", "n_head", "n_embd", "vocab_size", "block_size", "embd_pdrop", "resid_pdrop", "attn_pdrop",
          "layer_norm_epsilon", "tie_weights")  # fmt: skip


def recorded_flags(args: argparse.Namespace) -> dict:
    """The flags as `hparams.yaml`, `summary.json` and checkpoints hold them."""
    flags = {name: value for name, value in vars(args).items() if name not in NOT_RECORDED}
    return {**flags, "betas": list(args.betas)}


def write_summary(folder: Path, args, trainer, record, results: dict) -> None:
    """Write `summary.json`: the results, and the flags, versions and machine behind them. A run that has this file is
    complete."""
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
        "flags": recorded_flags(args),
        "command": shlex.join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic_write(folder / "summary.json", lambda file: file.write(json.dumps(summary, indent=2) + "\n"))


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


def devices_of(trainer) -> str:
    """Number, if more than one, and name of the devices of a training."""
    count = trainer.num_devices * trainer.num_nodes
    return ("" if count == 1 else f"{count} x ") + device_name(trainer.strategy.root_device)


def resume_hint(run_dir: Path, args: argparse.Namespace, step: int, kept_steps: int) -> str:
    """The message after an interruption at a step: how many steps the checkpoint holds, and the command that resumes
    the run."""
    run_dir = run_dir.resolve()
    command = [sys.executable, str(HERE / "train.py"), "--resume", str(run_dir), "--log_dir", str(run_dir.parents[1]),
               *flags_to_repeat(args)]  # fmt: skip
    way_on = f"continue with {shell_command(command)}" if kept_steps else "there is no checkpoint yet"
    return f"interrupted at step {step}; {kept_steps} steps are kept; {way_on}"


def shell_command(words: list[str]) -> str:
    """The words quoted for the shell; on Windows, for cmd.exe."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def config_of(model: GPT) -> dict:
    """The part of a model's config that a checkpoint holds."""
    return {name: value for name, value in vars(model.config).items() if name in CONFIG}


def read_checkpoint(path: Path) -> dict:
    """Content of a checkpoint, with its tensors on the CPU. Code that the file may contain is not run.

    Raises:
        InputError: the file cannot be read, or part 3's training did not write it.
    """
    wanted = ("state_dict", "optimizer_states", "gpt_config", "vocabulary", "flags", "text_sha256", "epoch",
              "global_step", "callbacks")  # fmt: skip
    checkpoint = read_verified_checkpoint(path, wanted, kind="GPT", part="part 3")
    if RECORD not in checkpoint["callbacks"]:
        raise InputError(f"{path} is not a checkpoint of this GPT: choose one that part 3 wrote")
    return checkpoint


def model_of(checkpoint: dict, path: Path) -> GPT:
    """The model in a checkpoint's content, in evaluation mode; the path is for the message.

    Raises:
        InputError: the checkpoint is of another model.
    """
    try:
        model = GPT(argparse.Namespace(**checkpoint["gpt_config"]))
        weights = {name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()}
        model.load_state_dict(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} is a checkpoint of another model than this GPT: choose one that part 3 wrote"
        ) from error
    return model.eval()


def load_gpt(path: Path) -> tuple[GPT, Vocabulary, dict]:
    """Model, on the CPU and in evaluation mode, vocabulary and content of a checkpoint.

    Raises:
        InputError: the file cannot be read, or is not a checkpoint of this model.
    """
    checkpoint = read_checkpoint(path)
    return model_of(checkpoint, path), from_state(checkpoint["vocabulary"]), checkpoint

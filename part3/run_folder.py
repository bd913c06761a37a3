"""The folder of a run: what is written into it while it trains, and how to find and read it again."""

import argparse
import csv
import ctypes
import json
import logging
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.core.saving import save_hparams_to_yaml
from pytorch_lightning.plugins.io import TorchCheckpointIO

from gpt import GPT
from inputs import HERE, InputError, given_again
from vocabulary import Vocabulary, from_state

log = logging.getLogger(__name__)
RUNS = "lightning_logs"
GOALS = (2.0, 1.8, 1.6, 1.5)  # validation losses in nats whose first step and time the summary states
PACKAGES = ("torch", "pytorch-lightning", "numpy", "tokenizers", "safetensors")
CONFIG = ("n_layer", "n_head", "n_embd", "vocab_size", "block_size", "embd_pdrop", "resid_pdrop", "attn_pdrop",
          "layer_norm_epsilon", "tie_weights")  # fmt: skip


class SeedEveryRound(pl.Callback):
    """Seeds dropout at the start of every round of steps between two validations, so that it does not depend on what
    was drawn before, and a resumed run draws what an uninterrupted one does. Each process has its own."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module, batch, batch_idx: int) -> None:
        if batch_idx == 0:
            torch.manual_seed((self.seed * 1_000_003 + trainer.global_step) * 1_009 + trainer.global_rank)


class BestAndLast(ModelCheckpoint):
    """Keeps `best.ckpt`, with the lowest validation loss, and `last.ckpt`.

    Args:
        kept_steps: steps of the training that `last.ckpt` holds already.

    Attributes:
        kept_steps: those that it holds by now.
    """

    def __init__(self, kept_steps: int = 0):
        super().__init__(
            filename="best",
            monitor="val_loss",
            mode="min",
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.kept_steps = kept_steps

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.kept_steps = trainer.global_step

    def load_state_dict(self, state_dict: dict) -> None:
        """The paths of a run that was moved since are those of its folder now."""
        folder = Path(self.dirpath)
        state = dict(state_dict, dirpath=self.dirpath)
        for name in ("best_model_path", "last_model_path", "kth_best_model_path"):
            state[name] = str(folder / Path(state[name]).name)
        state["best_k_models"] = {
            str(folder / Path(path).name): score for path, score in state["best_k_models"].items()
        }
        super().load_state_dict(state)


class OneStepCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint in one step. Lightning's own is written in the folder for temporary files, from which it is
    copied over the old one where that is another file system."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options=None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(path), lambda file: torch.save(checkpoint, file), mode="wb")


class RunRecord(pl.Callback):
    """Writes `metrics.csv` and `hparams.yaml`, reports each validation, and keeps flags and rows in the checkpoint.

    Args:
        args: the run's flags.
        num_steps: of the whole training.
        tokens_per_step: that all processes together train on.
        text_sha256: of the text.
    """

    def __init__(self, args: argparse.Namespace, num_steps: int, tokens_per_step: int, text_sha256: str):
        self.args, self.text_sha256 = args, text_sha256
        self.flags = {name: value for name, value in vars(args).items() if name not in ("given", "resume")}
        self.flags["betas"] = list(args.betas)
        self.quiet = wants_bar(args.progress_bar)
        self.num_steps, self.tokens_per_step = num_steps, tokens_per_step
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.logger.log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").unlink(missing_ok=True)  # of a complete run that is continued
        save_hparams_to_yaml(str(folder / "hparams.yaml"), self.flags)
        trainer.logger.experiment.add_custom_scalars(
            {"loss in nats": {"training and validation": ["Multiline", ["train_loss", "val_loss"]]}}
        )
        log.info("%s parameters; %d steps; on %s; run folder: %s",
                 f"{sum(p.numel() for p in pl_module.parameters()):,}", self.num_steps, devices_of(trainer),
                 folder)  # fmt: skip

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self._start, self._first_step = time.perf_counter(), trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module) -> None:
        step, before = trainer.global_step, self.rows[-1]["seconds"] if self.rows else 0.0
        seconds = time.perf_counter() - self._start
        speed = (step - self._first_step) * self.tokens_per_step / seconds
        row = {"step": step, "seconds": before + seconds, "tokens_per_second": speed, **pl_module.results}
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        trainer.logger.experiment.add_scalar("tokens_per_second", speed, step)
        trainer.logger.experiment.flush()
        write_whole(Path(trainer.logger.log_dir, "metrics.csv"), self._csv)
        if not self.quiet:
            log.info("step %d/%d: train %.4f, val %.4f nats (%.3f bits per character), %.0f s, %.0f tokens/s, "
                     "about %s left", step, self.num_steps, row["train_loss"], row["val_loss"], row["val_bpc"],
                     row["seconds"], speed, self.time_left(step))  # fmt: skip

    def time_left(self, step: int) -> timedelta:
        """Estimate for the rest of the training after this step, from the latest speed."""
        tokens = (self.num_steps - step) * self.tokens_per_step
        return timedelta(seconds=round(tokens / self.rows[-1]["tokens_per_second"]))

    def on_exception(self, trainer: pl.Trainer, pl_module, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt | SystemExit) and trainer.is_global_zero:
            self.say_how_to_go_on(trainer)

    def say_how_to_go_on(self, trainer: pl.Trainer) -> None:
        """What to tell someone who interrupted the run: how much of it is kept, and the command that goes on there."""
        run = Path(trainer.logger.log_dir).resolve()
        kept = trainer.checkpoint_callback.kept_steps
        command = [sys.executable, str(HERE / "train.py"), "--resume", str(run), "--log_dir", str(run.parents[1]),
                   *given_again(self.args)]  # fmt: skip
        way_on = f"continue with {command_line(command)}" if kept else "there is no checkpoint yet"
        log.info("\ninterrupted at step %d; %d steps are kept; %s", trainer.global_step, kept, way_on)

    def _csv(self, file) -> None:
        writer = csv.DictWriter(file, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        checkpoint["flags"], checkpoint["text_sha256"] = self.flags, self.text_sha256

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict) -> None:
        self.rows = list(state_dict["rows"])


class StepBar(TQDMProgressBar):
    """A progress bar over the steps up to the next validation, which says how many of the whole training are done, and
    about how long the others will take."""

    def __init__(self, record: RunRecord):
        super().__init__()
        self.record = record

    def on_train_epoch_start(self, trainer: pl.Trainer, *args) -> None:
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(f"after {trainer.global_step} of {self.record.num_steps} steps")

    def get_metrics(self, trainer: pl.Trainer, pl_module) -> dict:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if self.record.rows:
            metrics["left"] = str(self.record.time_left(trainer.global_step))
        return metrics


def write_whole(path: Path, write, mode: str = "w") -> None:
    """Replace a file in one step, so that an interruption leaves the old or the new one and never a half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, mode, **({} if "b" in mode else {"newline": "", "encoding": "utf-8"})) as file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_summary(folder: Path, args, trainer: pl.Trainer, record: RunRecord, results: dict) -> None:
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
    """The words as this system's shell takes them."""
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

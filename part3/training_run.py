"""A training's set-up (logging, CPU, text, model, trainer, schedule) and what it leaves in its run directory."""

import argparse
import contextlib
import ctypes
import hashlib
import logging
import math
import os
import platform
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from callbacks import (
    BestAndLast,
    GenerateCallback,
    RunRecord,
    SeedEveryRound,
    StepBar,
    StopAtNonFiniteLoss,
    StopWhenWarned,
)
from cli import stops_as_such
from dataset import TextDataset, load_text, planned_steps, split
from gpt import GPT
from inputs import RUNS, InputError
from lightning_files import AtomicCheckpointIO, RunLogger
from pictures import plot_curves
from pretrained import check_fits, load_vocabulary
from processes import Processes, StopRequest, count_devices, find_processes
from run_files import atomic_write
from run_folder import model_of, resume_hint, write_summary
from streams import StdoutHandler
from vocabulary import Characters, Vocabulary, from_state

log = logging.getLogger("part3")  # the logger of all modules of this part
to_stdout = StdoutHandler()


def log_to_stdout() -> None:
    """Print progress messages to stdout, unless the application has configured logging."""
    log.removeHandler(to_stdout)  # of an earlier call: the application may have configured logging since then
    log.setLevel(logging.NOTSET)
    if not log.hasHandlers():
        log.addHandler(to_stdout)
        log.setLevel(logging.INFO)


def configure_cpu() -> None:
    """Two settings that make training steps on a CPU faster. Call it before any tensor is computed, since worker
    threads copy the first setting when they start.

    - Numbers below 1e-38 (denormals) become zero: processors are slow with them, and they occur in Adam's
      moments.
    - glibc keeps freed memory: otherwise it returns the memory of activations to the system, which has to clear it
      again in every step.
    """
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
        libc = ctypes.CDLL(None)
        if not libc.mallopt(M_MMAP_THRESHOLD, 1 << 30):
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)  # the maximum before glibc 2.35
        for parameter, value in ((M_TRIM_THRESHOLD, (1 << 31) - 1), (M_TOP_PAD, 1 << 28)):
            libc.mallopt(parameter, value)


def silence_lightning() -> None:
    """Hide Lightning's notes on unused hardware and the advice that does not apply here."""
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


def show_progress(asked: bool) -> bool:
    """Whether to show a progress bar: if the user asked for it, or on a terminal; not in the log file of a job."""
    return asked or sys.stdout.isatty()


def gpu_backend(accelerator: str) -> str | None:
    """PyTorch's name, "cuda" or "mps", of the GPU that `--accelerator` stands for; None for the CPU."""
    if accelerator == "cpu":
        return None
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None


def seed_everything(seed: int) -> None:
    """Seed all random number generators."""
    pl.seed_everything(seed, workers=True, verbose=False)


def read_text_of_run(settings: argparse.Namespace) -> str:
    """The whole text, for training and validation.

    Raises:
        InputError: it cannot be read or downloaded, or is not the text of the resumed run.
    """
    text = load_text(settings.txt_file, Path(settings.data_dir))
    if settings.saved and sha256(text) != settings.saved["text_sha256"]:
        raise InputError(f"{settings.txt_file} is not the text that the run to resume was started with: give the "
                         "path of that text to --txt_file, or start a new run without --resume")  # fmt: skip
    return text


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_vocabulary(settings: argparse.Namespace, text: str) -> Vocabulary:
    """The vocabulary of the resumed run, that of the pretrained model, or the characters of the text."""
    if settings.saved:
        return from_state(settings.saved["vocabulary"])
    return load_vocabulary(pretrained_place(settings)) if settings.use_pretrained else Characters.of(text)


def pretrained_place(settings: argparse.Namespace) -> str | Path:
    """Where the pretrained model is: a published name, or the path of a folder."""
    return settings.model_type if settings.use_pretrained == "hub" else Path(settings.use_pretrained)


def make_model(settings: argparse.Namespace, vocabulary: Vocabulary) -> GPT:
    """The model of the resumed run, a pretrained one, or a new one, in training mode.

    Raises:
        InputError: the weights cannot be found, downloaded or read, or do not fit the flags.
    """
    if settings.saved:
        return model_of(settings.saved, settings.checkpoint).train()
    if settings.use_pretrained is None:
        config = GPT.get_default_config()
        config.model_type, config.block_size = settings.model_type, settings.block_size
        config.vocab_size = vocabulary.vocab_size
        return GPT(config)
    model = GPT.from_pretrained(pretrained_place(settings))
    check_fits(pretrained_place(settings), model, vocabulary)
    if settings.block_size > model.block_size:
        raise InputError(f"--block_size {settings.block_size} is more than the {model.block_size} positions of the "
                         "pretrained model")  # fmt: skip
    for parameter in model.parameters():  # row by row in memory, as in a resumed run, for bit-identical results
        parameter.data = parameter.data.contiguous()
    return model.train()


def make_datasets(settings: argparse.Namespace, vocabulary: Vocabulary, text: str) -> tuple[TextDataset, TextDataset]:
    """The first nine tenths of the text for training, the last for validation.

    Args:
        settings: the run's settings.
        vocabulary: maps text to tokens.
        text: the whole text.

    Raises:
        InputError: the text is too short, or consists of one character.
    """
    if vocabulary.vocab_size < 2:
        raise InputError(f"the text consists of {text[0]!r} alone, so that there is nothing to learn: take another one")
    train_text, val_text = split(text)
    train_set = TextDataset(settings, None, settings.block_size, vocabulary=vocabulary, text=train_text)
    try:
        val_set = TextDataset(settings, None, settings.block_size, vocabulary=vocabulary, text=val_text)
    except InputError as error:
        raise InputError(f"the last tenth of the text, which is for validation, is too short: {error}") from error
    return train_set, val_set


def join_processes(settings: argparse.Namespace) -> Processes:
    """The processes of the training.

    Raises:
        InputError: the flags ask for more devices than there are, or for a GPU where there is none, or contradict the
            processes that torchrun or srun started.
    """
    if settings.accelerator == "gpu" and not gpu_backend("gpu"):
        if "accelerator" in settings.given:
            raise InputError("--accelerator gpu: PyTorch finds no GPU here: leave the flag out to train on the CPU")
        raise InputError("the run to --resume was started with --accelerator gpu, and PyTorch finds no GPU here: give "
                         "--accelerator cpu to continue it on the CPU")  # fmt: skip
    available = num_gpus(settings) or os.cpu_count()
    if settings.devices != "auto" and int(settings.devices) > available:
        raise InputError(f"--devices is {settings.devices}, but this machine has {available}: give at most that many")
    return find_processes(count_devices(settings.devices, num_gpus(settings)), settings.num_nodes)


def num_gpus(settings: argparse.Namespace) -> int:
    """GPUs that the training may use."""
    return 0 if settings.accelerator == "cpu" else torch.cuda.device_count()


def make_trainer(
    settings: argparse.Namespace, num_windows: int, text: str, processes: Processes | None = None
) -> tuple[pl.Trainer, RunRecord]:
    """The trainer and the callback that keeps the run's record; both write into the same run directory. Each of the
    trainer's epochs is a round: the steps up to the next validation.

    Args:
        settings: the run's settings.
        num_windows: windows of the training set.
        text: the whole text.
        processes: the processes of the training; None: found from the settings.

    Raises:
        InputError: the devices, the strategy or the number format are not available on this machine, or the run
            already has all its steps.
    """
    processes = processes or join_processes(settings)
    num_devices = processes.world_size()
    num_steps = planned_steps(settings, num_windows, num_devices)
    done, rounds = steps_and_rounds_done(settings, num_steps)
    bar = show_progress(settings.progress_bar)
    tokens_per_step = settings.train_batch_size * settings.block_size * num_devices
    record = RunRecord(settings, num_steps, tokens_per_step, sha256(text), quiet=bar)
    callbacks = [
        SeedEveryRound(settings.seed),
        GenerateCallback(settings.generate_batch_size, settings.generate_every_n_steps),
        record,
        BestAndLast(kept_steps=done),
        StopWhenWarned(StopRequest()),
        *([StepBar(record)] if bar else []),
        StopAtNonFiniteLoss(),
    ]
    processes.start(num_devices // settings.num_nodes)
    try:
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices if settings.devices == "auto" else int(settings.devices),
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            precision=settings.precision,
            max_epochs=rounds + math.ceil((num_steps - done) / settings.val_every_n_steps),
            inference_mode=not settings.compile,  # CUDA graphs write into tensors that belong to no mode
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            gradient_clip_val=settings.clip_grad_norm or None,
            logger=RunLogger(Path(settings.log_dir, RUNS)),
            plugins=[AtomicCheckpointIO(), processes],
            default_root_dir=os.devnull,  # from another one, Lightning would load any hpc_ckpt_*.ckpt
            callbacks=callbacks,
            enable_progress_bar=bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--accelerator, --devices, --num_nodes, --strategy or --precision cannot be used here: {reason}"
        ) from error
    if settings.precision == "64-true" and trainer.strategy.root_device.type == "mps":
        raise InputError("--precision 64-true needs float64, which Apple's GPUs do not have: give --accelerator cpu")
    return trainer, record


def steps_and_rounds_done(settings: argparse.Namespace, num_steps: int) -> tuple[int, int]:
    """Steps and rounds that the resumed run has completed; zeros for a new run.

    Raises:
        InputError: the run already has all its steps, or the warm-up of a new run is not shorter than its training.
    """
    if settings.saved is None:
        if settings.warmup_steps >= num_steps:
            raise InputError(f"--warmup_steps {settings.warmup_steps} must be below the {num_steps} steps of the "
                             "training")  # fmt: skip
        return 0, 0
    done = settings.saved["global_step"]
    complete = (settings.run_dir / "summary.json").exists()
    if done > num_steps or (done == num_steps and complete):
        raise InputError(f"the run already has {done} steps: raise --max_steps or --num_epochs to continue it")
    return done, settings.saved["epoch"] + 1


@contextlib.contextmanager
def resumable(trainer: pl.Trainer, settings: argparse.Namespace):
    """Context of a training: if it is interrupted, a message says how to resume it. The KeyboardInterrupt or
    SystemExit is raised again."""
    request = next(callback.request for callback in trainer.callbacks if isinstance(callback, StopWhenWarned))
    try:
        with stops_as_such(), request:
            yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if trainer.is_global_zero:
            run_dir, kept_steps = Path(trainer.logger.log_dir), trainer.checkpoint_callback.kept_steps
            log.info("\n%s", resume_hint(run_dir, settings, trainer.global_step, kept_steps))
        if isinstance(stop, SystemExit) and stop.code == 1:  # Lightning's exit code after a KeyboardInterrupt
            stop = KeyboardInterrupt()
        stop.explained = True
        raise stop


def with_schedule(optimizer: torch.optim.Optimizer, module: pl.LightningModule):
    """What `configure_optimizers` returns: the optimizer, with the schedule that the module's flags ask for."""
    config = module.config
    if not config.warmup_steps and config.lr_schedule == "constant":
        return optimizer
    num_steps = planned_steps(config, len(module.train_dataset), module.trainer.world_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, num_steps, config))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_at(step: int, num_steps: int, config: argparse.Namespace) -> float:
    """Learning rate of a step, as a multiple of `learning_rate`. It rises linearly over `warmup_steps`; then it is
    constant, or falls along half a cosine to `min_learning_rate` (Loshchilov and Hutter, 2017).

    Args:
        step: number of the step, from 0.
        num_steps: steps of the whole training.
        config: the run's flags.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return 1.0
    least = config.min_learning_rate / config.learning_rate
    progress = min(1.0, (step - config.warmup_steps) / max(1, num_steps - 1 - config.warmup_steps))
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * progress))


def write_results(settings: argparse.Namespace, trainer: pl.Trainer, record: RunRecord, module) -> None:
    """Write the curves into the run directory, and `summary.json` last."""
    folder, board = Path(trainer.logger.log_dir), trainer.logger.experiment
    figure = plot_curves(record.rows, module.train_dataset.vocab_size)
    atomic_write(folder / "curves.png", lambda file: figure.savefig(file, format="png", dpi=150), mode="wb")
    board.add_figure("curves", figure, global_step=trainer.global_step)
    results = {
        "parameters": sum(p.numel() for p in module.parameters()),
        **{name: getattr(module.model.config, name) for name in ("vocab_size", "n_layer", "n_head", "n_embd")},
    }
    write_summary(folder, settings, trainer, record, results)
    board.flush()
    best = min(record.rows, key=lambda row: row["val_loss"])
    log.info("best validation: %.4f nats, %.3f bits per character at step %d; sample texts and results are in %s",
             best["val_loss"], best["val_bpc"], best["step"], folder)  # fmt: skip

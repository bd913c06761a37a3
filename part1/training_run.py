"""A training's set-up (logging, CPU, data, trainer) and what it leaves in its run directory."""

import argparse
import contextlib
import ctypes
import logging
import os
import platform
import shutil
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.seed import isolate_rng
from torch.utils.data import DataLoader

from callbacks import (
    BestAndLast,
    EpochBar,
    GenerateCallback,
    MovingAverage,
    RunRecord,
    SeedEveryEpoch,
    StopAtNonFiniteLoss,
    StopWhenWarned,
)
from cli import stops_as_such
from evaluation import encode, importance_weighted_bound
from gpu import keep_on_gpu
from inputs import RUNS, InputError, NoDataError
from lightning_files import AtomicCheckpointIO, RunLogger
from mnist import Loaders, load_data
from pictures import plot_bpd_curve, plot_codes, write_picture
from processes import Processes, StopRequest, count_devices, find_processes
from run_folder import resume_hint, write_summary
from streams import StdoutHandler
from utils import elbo_to_bpd, visualize_manifold

PROJECTED = 1000  # test images in TensorBoard's projector; all 10,000 would take 0.7 GB and load slowly
log = logging.getLogger("part1")  # the logger of all modules of this part
to_stdout = StdoutHandler()


# -------------------------------------------------------------------------------------------------------------- set-up


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

    - Numbers below 1e-38 (denormals) become zero: processors are slow with them, and they occur in the gradient of a
      pixel whose value is almost certain.
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
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")


def show_progress(asked: bool) -> bool:
    """Whether to show a progress bar: if the user asked for it, or on a terminal; not in the log file of a job."""
    return asked or sys.stdout.isatty()


def gpu_backend(accelerator: str) -> str | None:
    """PyTorch's name, "cuda" or "mps", of the GPU that `--accelerator` stands for; None for the CPU."""
    if accelerator == "cpu":
        return None
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None


def make_loaders(settings: argparse.Namespace) -> Loaders:
    """Training, validation and test loader.

    Raises:
        InputError: there are no data, or they cannot be read.
    """
    on_cuda = gpu_backend(settings.accelerator) == "cuda"
    resident = on_cuda and not settings.num_workers and count_devices(settings.devices, num_gpus(settings)) == 1
    try:
        loaders = load_data(settings, pin_memory=on_cuda and not resident)
    except NoDataError as error:
        raise NoDataError(f"{error}, or train on the built-in digits with --dataset digits") from error
    if resident:  # of several devices, each would have to know its own before Lightning has started it
        training = loaders[0].dataset.dataset  # training and validation set are parts of it
        for dataset in (training, loaders[2].dataset):
            keep_on_gpu(dataset, torch.device("cuda", 0), settings.num_workers)
    # Lightning sets the epoch, too, but only after loaders with worker processes have asked for the first order.
    loaders[0].sampler.set_epoch(settings.saved["epoch"] + 1 if settings.saved else 0)
    return loaders


def seed_everything(seed: int) -> None:
    """Seed all random number generators."""
    pl.seed_everything(seed, workers=True, verbose=False)


def make_trainer(settings: argparse.Namespace, processes: Processes | None = None) -> tuple[pl.Trainer, RunRecord]:
    """The trainer, and the callback that keeps the run's record. Both write into one run directory.

    Raises:
        InputError: the devices, the strategy or the number format are not available on this machine.
    """
    processes = processes or join_processes(settings)
    processes.start(count_devices(settings.devices, num_gpus(settings)))
    bar = show_progress(settings.progress_bar)
    record = RunRecord(settings, quiet=bar)
    callbacks = [
        SeedEveryEpoch(settings.seed),
        StopAtNonFiniteLoss(),
        GenerateCallback(save_to_disk=True),
        record,
        BestAndLast(),
        StopWhenWarned(StopRequest()),
    ]
    if settings.ema:
        callbacks.insert(0, MovingAverage(settings.ema, device=gpu_backend(settings.accelerator)))
    if bar:
        callbacks.append(EpochBar(record))
    try:
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices if settings.devices == "auto" else int(settings.devices),
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            precision=settings.precision,
            max_epochs=settings.epochs,
            inference_mode=not settings.compile,  # CUDA graphs write into tensors that belong to no mode
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


def join_processes(settings: argparse.Namespace) -> Processes:
    """The processes of the training.

    Raises:
        InputError: the flags ask for more devices than there are, for a GPU where there is none, or for other processes
            than there are.
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


@contextlib.contextmanager
def resumable(trainer: pl.Trainer, settings: argparse.Namespace):
    """Context of a training: where it is interrupted, a message says how to resume it.

    Raises:
        KeyboardInterrupt: it was interrupted; Lightning itself raises SystemExit with a code then.
        SystemExit: another signal has ended it.
    """
    request = next(callback.request for callback in trainer.callbacks if isinstance(callback, StopWhenWarned))
    try:
        with stops_as_such(), request:
            yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if trainer.is_global_zero:
            log.info("\n%s", resume_hint(Path(trainer.logger.log_dir), settings))
        if isinstance(stop, SystemExit) and stop.code == 1:  # Lightning's exit code after a KeyboardInterrupt
            stop = KeyboardInterrupt()
        stop.explained = True
        raise stop


# ------------------------------------------------------------------------------------------------------------- results


def write_results(
    settings: argparse.Namespace,
    trainer: pl.Trainer,
    record: RunRecord,
    vae,
    best_epoch: int,
    test_loader: DataLoader,
    test_result: dict[str, float],
) -> None:
    """Write pictures, codes and scores of the tested model into the run directory, and `summary.json` last.

    Args:
        settings: the run's settings.
        trainer: knows the run directory, TensorBoard's writer and the device.
        record: the rows of `metrics.csv`.
        vae: the model with the lowest validation bpd.
        best_epoch: the epoch that it is of.
        test_loader: the test images.
        test_result: Lightning's test result.
    """
    vae.float().to(trainer.strategy.root_device)
    run_dir, board, epoch = Path(trainer.logger.log_dir), trainer.logger.experiment, settings.epochs
    results = {name: float(value) for name, value in test_result.items()}
    with isolate_rng(include_cuda=vae.device.type == "cuda"):
        torch.manual_seed(settings.seed)
        if settings.importance_samples:
            results |= importance_weighted_results(vae, test_loader, settings.importance_samples)
        codes, labels = encode(vae, test_loader)
    write_codes(run_dir, board, epoch, codes, labels, test_loader)
    figures = {"bpd_curve": plot_bpd_curve(record.rows, results["test_bpd"])}
    if settings.z_dim == 2:
        manifold = visualize_manifold(vae.decoder, grid_size=20)
        write_picture(run_dir / "vae_manifold.png", manifold)
        board.add_image("Manifold", manifold, global_step=epoch)
        figures["codes"] = plot_codes(codes, labels)
    for name, figure in figures.items():
        write_picture(run_dir / f"{name}.png", figure)
        board.add_figure(name, figure, global_step=epoch)
    write_summary(run_dir, settings, trainer, record, best_epoch, results)
    board.flush()
    score = f"{results['test_bpd']:.4f} bpd (best epoch {best_epoch} of {epoch})"
    if settings.importance_samples:
        bound = f"{results['test_importance_weighted_bpd']:.4f}"
        score += f"; importance-weighted with {settings.importance_samples} samples {bound} bpd"
    log.info("test: %s; pictures and numbers are in %s", score, run_dir)


def importance_weighted_results(vae, test_loader: DataLoader, num_samples: int) -> dict[str, float]:
    """The importance-weighted bound for `summary.json`, in nats an image and in bits per dimension."""
    nll = importance_weighted_bound(vae, test_loader, num_samples)
    return {
        "importance_samples": num_samples,
        "test_importance_weighted_nll": nll,
        "test_importance_weighted_bpd": float(elbo_to_bpd(torch.tensor(nll), (1, 1, 28, 28))),
    }


def write_codes(run_dir: Path, board, epoch: int, codes: torch.Tensor, labels: torch.Tensor, test_loader) -> None:
    """Write the first test images, their codes [N, z_dim] and labels [N] for TensorBoard's projector."""
    images = test_loader.dataset[:PROJECTED][0].cpu() / 15
    points = codes[:PROJECTED]
    points = F.pad(points, (0, max(0, 3 - points.size(1))))  # the projector draws nothing in fewer than 3 dimensions
    shutil.rmtree(run_dir / f"{epoch:05}", ignore_errors=True)  # those of an earlier test of this run
    board.add_embedding(points, labels[:PROJECTED].tolist(), images, global_step=epoch, tag="codes")

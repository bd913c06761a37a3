"""A training's set-up (devices, data, model, optimizers) and what it leaves in its run directory."""

import argparse
import contextlib
import ctypes
import logging
import os
import platform
import shutil
import sys

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader
from tqdm import tqdm

import run_folder
from compiled import CompiledAE
from evaluation import distances_to_prior, encode, evaluating, kolmogorov_smirnov
from gpu import compile_options, configure_gpu, keep_on_gpu
from inputs import InputError, NoDataError, resolve_strategy
from mnist import load_data
from models import AdversarialAE
from pictures import manifold_grid, plot_codes, plot_curves, write_picture
from processes import count_devices, find_processes
from run_record import RunRecord
from streams import StdoutHandler
from utils import TensorBoardLogger

PROJECTED = 1000  # test images in TensorBoard's projector; all 10,000 would take 0.7 GB and load slowly
log = logging.getLogger("part2")  # the logger of all modules of this part


# -------------------------------------------------------------------------------------------------------------- set-up


to_stdout = StdoutHandler()


def log_to_stdout() -> None:
    """Print progress messages to stdout, unless the application has configured logging."""
    log.removeHandler(to_stdout)  # of an earlier call: the application may have configured logging since then
    log.setLevel(logging.NOTSET)
    if not log.hasHandlers():
        log.addHandler(to_stdout)
        log.setLevel(logging.INFO)


def configure_cpu() -> None:
    """Two settings that make training steps on a CPU faster. Call it before any tensor is computed, since PyTorch's
    threads copy the first setting when they start.

    - Numbers below 1e-38 (denormals) become zero: processors are slow with them, and they occur in gradients through a
      saturated tanh and in Adam's moments.
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


def start_fabric(settings: argparse.Namespace) -> Fabric:
    """Start Fabric on the devices and in the number format of the settings; it starts the other processes, if any.

    Raises:
        InputError: the devices, the strategy or the number format are not available on this machine.
    """
    for name in ("lightning_fabric", "lightning.fabric", "lightning_utilities"):  # hints about unused hardware
        logging.getLogger(name).setLevel(logging.WARNING)
    configure_gpu(settings.deterministic)
    num_gpus = 0 if settings.no_cuda else torch.cuda.device_count()
    available = num_gpus or os.cpu_count()
    if settings.devices != "auto" and int(settings.devices) > available:
        raise InputError(f"--devices is {settings.devices}, but this machine has {available}: give at most that many")
    num_devices = count_devices(settings.devices, num_gpus)
    processes = find_processes(num_devices, settings.num_nodes)
    try:
        fabric = Fabric(
            accelerator="cpu" if settings.no_cuda else "auto",
            devices=settings.devices if settings.devices == "auto" else int(settings.devices),
            num_nodes=settings.num_nodes,
            strategy=resolve_strategy(settings, num_gpus),
            precision=settings.precision,
            plugins=[processes],
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--devices, --num_nodes, --strategy or --precision cannot be used here: {reason}") from error
    if not settings.no_cuda and "no_cuda" in settings.given and fabric.device.type == "cpu":
        raise InputError("--cuda: PyTorch finds no GPU here: leave the flag out to train on the CPU")
    if settings.precision == "64-true" and fabric.device.type == "mps":
        raise InputError("--precision 64-true needs float64, which Apple's GPUs do not have: give --no-cuda")
    processes.start(num_devices)
    fabric.launch()
    return fabric


def make_loaders(settings: argparse.Namespace, fabric: Fabric) -> tuple[DataLoader, DataLoader]:
    """Training loader, with this process's share of each epoch, and test loader. The first process downloads MNIST
    before the others look for it.

    Raises:
        InputError: there are no data, or they cannot be read.
    """
    failed = None
    with fabric.rank_zero_first():
        try:
            train_loader, test_loader = load_data(
                settings, pin_memory=fabric.device.type == "cuda" and settings.num_workers > 0
            )
        except Exception as error:  # raised below, since the other processes wait until this one leaves the block
            failed = error
    if isinstance(failed, NoDataError):
        raise NoDataError(f"{failed}, or train on the built-in digits with --dataset digits") from failed
    if failed:
        raise failed
    for loader in (train_loader, test_loader):
        keep_on_gpu(loader.dataset, fabric.device, settings.num_workers)
    train_loader.sampler.share(fabric.global_rank, fabric.world_size)
    return train_loader, test_loader


def make_optimizers(model: AdversarialAE, ae_lr: float, d_lr: float) -> tuple[torch.optim.Adam, torch.optim.SGD]:
    """Adam for encoder and decoder, with the beta1 that is usual in adversarial training, and plain SGD for the
    discriminator."""
    autoencoder = [*model.encoder.parameters(), *model.decoder.parameters()]
    return (
        torch.optim.Adam(autoencoder, lr=ae_lr, betas=(0.5, 0.999), fused=True),
        torch.optim.SGD(model.discriminator.parameters(), lr=d_lr, fused=True),
    )


class TrainingState:
    """All that training steps change: model, optimizers and loggers.

    Args:
        settings: of the run.
        fabric: launched.
        writer: TensorBoard writer; None on processes that do not write.

    Attributes:
        model: the `AdversarialAE`.
        wrapped_model: the model within Fabric, which averages gradients over the processes.
    """

    def __init__(self, settings: argparse.Namespace, fabric: Fabric, writer):
        fabric.seed_everything(settings.seed, workers=False, verbose=False)
        if settings.compile:
            model = CompiledAE(settings.z_dim, settings.encoder, **compile_options(fabric.device.type))
        else:
            model = AdversarialAE(settings.z_dim, settings.encoder)
        self.model = model.to(memory_format=torch.channels_last)
        self.wrapped_model, self.optimizer_ae, self.optimizer_disc = fabric.setup(
            self.model, *make_optimizers(self.model, settings.ae_lr, settings.d_lr)
        )
        for method in ("get_loss_autoencoder", "get_loss_discriminator"):
            # Fabric averages only the gradients of calls that go through the wrapper.
            self.wrapped_model.mark_forward_method(method)
        self.logger_ae = TensorBoardLogger(writer, name="generator")
        self.logger_disc = TensorBoardLogger(writer, name="discriminator")
        self._precision = fabric.strategy.precision  # keeps the scale of the loss in 16-mixed
        if settings.saved:
            self._restore(settings.saved)

    def state_dict(self) -> dict:
        return {
            "state_dict": self.model.state_dict(),
            "optimizer_ae": self.optimizer_ae.state_dict(),
            "optimizer_disc": self.optimizer_disc.state_dict(),
            "precision": self._precision.state_dict(),
            "logger_ae": self.logger_ae.state_dict(),
            "logger_disc": self.logger_disc.state_dict(),
        }

    def _restore(self, saved: dict) -> None:
        self.model.load_state_dict(saved["state_dict"])  # after fabric.setup, which sets the number format
        self.optimizer_ae.load_state_dict(saved["optimizer_ae"])
        self.optimizer_disc.load_state_dict(saved["optimizer_disc"])
        if saved["precision"]:  # empty, unless the run was trained in 16-mixed
            self._precision.load_state_dict(saved["precision"])
        self.logger_ae.load_state_dict(saved["logger_ae"])
        self.logger_disc.load_state_dict(saved["logger_disc"])


# ----------------------------------------------------------------------------------------------------- during training


@contextlib.contextmanager
def epoch_batches(loader: DataLoader, settings: argparse.Namespace, fabric: Fabric, epoch: int):
    """The batches of an epoch, with a progress bar on a terminal.

    Their order, and the random numbers of the epoch, depend only on the seed and the epoch, so that a resumed run
    draws the same ones as an uninterrupted run. Each process has its own random numbers.
    """
    loader.sampler.set_epoch(epoch - 1)
    torch.manual_seed((settings.seed * 1_000_003 + epoch) * 1_009 + fabric.global_rank)
    hidden = not (fabric.is_global_zero and show_progress(settings.progress_bar))
    name = f"epoch {epoch}/{settings.epochs}"
    with tqdm(loader, desc=name, disable=hidden, leave=False, mininterval=0.5) as bar:
        yield bar


def show_progress(asked: bool) -> bool:
    """Whether to show a progress bar: if the user asked for it, or on a terminal, but not in the log file of a job."""
    return asked or sys.stdout.isatty()


def score_test_images(model: AdversarialAE, loader: DataLoader, fabric: Fabric) -> dict[str, float]:
    """`recon_loss` of the test images and the distances of their codes from the prior. The first process computes
    them, all processes get them."""
    scores = None
    if fabric.is_global_zero:
        with evaluating(model):
            codes, _, recon_loss = encode(model, loader)
        scores = {"recon_loss": recon_loss, **distances_to_prior(codes)}
    return fabric.broadcast(scores)


# ------------------------------------------------------------------------------------------------------ after training


def write_results(record: RunRecord, state: TrainingState, test_loader: DataLoader) -> dict:
    """Write what a finished run leaves beside its metrics: curves, codes, the latent plane, and last `summary.json`.

    Returns:
        The last epoch's training losses and test scores, and the Kolmogorov-Smirnov distance of each dimension; empty
        on processes other than the first.
    """
    if not record.fabric.is_global_zero:
        return {}
    settings, writer, run_dir, epoch = record.settings, record.writer, record.run_dir, record.epoch
    with evaluating(state.model):
        codes, labels, _ = encode(state.model, test_loader)
    pixels = test_loader.dataset[:PROJECTED][0].cpu() / 2 + 0.5
    points = F.pad(codes[:PROJECTED], (0, max(0, 3 - settings.z_dim)))  # the projector needs three dimensions
    shutil.rmtree(run_dir / f"{epoch:05}", ignore_errors=True)  # the projector's files of an earlier evaluation
    writer.add_embedding(points, labels[:PROJECTED].tolist(), pixels, global_step=epoch, tag="codes")
    figures = {"curves": plot_curves(record.rows)}
    if settings.z_dim == 2:
        figures["codes"] = plot_codes(codes, labels)
        manifold = manifold_grid(state.model.decoder)
        write_picture(run_dir / "manifold.png", manifold)
        writer.add_image("manifold", manifold, global_step=epoch)
    for name, figure in figures.items():
        write_picture(run_dir / f"{name}.png", figure)
        writer.add_figure(name, figure, global_step=epoch)
    results = {name: value for name, value in record.rows[-1].items() if name not in ("epoch", "step")}
    results["test_ks"] = kolmogorov_smirnov(codes).tolist()
    machine = {"device": run_folder.device_name(record.fabric.device), "num_devices": record.fabric.world_size}
    run_folder.write_summary(run_dir, settings, record.rows, record.seconds, results, machine)
    log.info("test: reconstruction %.4f, Kolmogorov-Smirnov distance to the prior %.3f",
             results["test_recon_loss"], results["test_ks_mean"])  # fmt: skip
    log.info("pictures and numbers are in %s", run_dir)
    return results

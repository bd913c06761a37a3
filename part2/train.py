"""Train an adversarial autoencoder on MNIST: `python train.py --help` lists the flags, `README.md` what a run leaves.

PyTorch and all that rests on it are imported inside the functions: they take seconds, and the flags are parsed before.
"""

from __future__ import annotations  # the names in signatures stand for modules that are not imported yet

import argparse
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from inputs import (
    DATA_DIR,
    LOG_DIR,
    InputError,
    NoDataError,
    NotFiniteError,
    beside,
    check,
    completed,
    continued,
    make_writable,
    parse,
    resolve_strategy,
)

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.utils.data import DataLoader
    from torch.utils.tensorboard import SummaryWriter

    from utils import TensorBoardLogger

READ_EVERY_N_STEPS = 50
log = logging.getLogger(__name__)


def train_aae(
    epoch: int,
    model: nn.Module,
    train_loader: DataLoader,
    logger_ae: TensorBoardLogger,
    logger_disc: TensorBoardLogger,
    optimizer_ae: Optimizer,
    optimizer_disc: Optimizer,
    lambda_: float = 1,
    *,
    backward: Callable[[Tensor], None] | None = None,
) -> dict[str, float]:
    """Train for one epoch: for each batch a step of encoder and decoder, then one of the discriminator.

    Nothing waits for the device in between; the losses are read from it once in `READ_EVERY_N_STEPS` steps.

    Args:
        epoch: number of the epoch, beginning with 1, for messages.
        model: an `AdversarialAE`, or what Fabric makes of one.
        train_loader: batches of images, float [B, 1, 28, 28] with values in [-1, 1], and labels, which are not used.
        logger_ae: gets `gen_loss`, `recon_loss`, `ae_loss` of each step.
        logger_disc: gets `disc_loss`, `loss_real`, `loss_fake`, `accuracy` of each step.
        optimizer_ae: holds the parameters of encoder and decoder.
        optimizer_disc: holds those of the discriminator.
        lambda_: weight of the reconstruction against the generator's loss.
        backward: computes gradients in the place of `loss.backward()`.

    Returns:
        The means of all seven values over the images of the epoch.

    Raises:
        NotFiniteError: a loss is NaN or infinite.
    """
    import torch

    from utils import EpochMeans

    backward = backward or torch.Tensor.backward
    device = model.decoder.device
    model.train()
    means, step = EpochMeans(), 0
    for step, (x, _) in enumerate(train_loader, start=1):
        x = x.to(device, non_blocking=True)

        recon_x, z_fake = model(x)
        ae_loss, ae_values = model.get_loss_autoencoder(x, recon_x, z_fake, lambda_)
        optimizer_ae.zero_grad(set_to_none=True)
        backward(ae_loss)
        optimizer_ae.step()

        disc_loss, disc_values = model.get_loss_discriminator(z_fake.detach())
        optimizer_disc.zero_grad(set_to_none=True)
        backward(disc_loss)
        optimizer_disc.step()

        logger_ae.add_values(ae_values)
        logger_disc.add_values(disc_values)
        means.add({**ae_values, **disc_values}, size=len(x))
        if step % READ_EVERY_N_STEPS == 0:
            _raise_if_not_finite(means.read(), epoch, step, device)
    _raise_if_not_finite(means.read(), epoch, step, device)
    return means.means()


def _raise_if_not_finite(window: dict[str, list[float]], epoch: int, last_step: int, device: torch.device) -> None:
    """Stop for the first step of a window with a loss that is not finite, on all processes at once.

    Args:
        window: values of the last steps by name.
        epoch, last_step: where they end.
        device: on which processes exchange tensors.
    """
    import torch

    places = range(max(map(len, window.values()), default=0))
    bad = {}
    for name, losses in window.items():
        for place in places:
            if not math.isfinite(losses[place]):
                bad.setdefault(place, name)
    first = min(bad, default=math.inf)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shared = torch.tensor(float(first), device=device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MIN)
        first = shared.item()
    if first < math.inf:
        name = bad.get(int(first), "a loss of another process")
        raise NotFiniteError(_not_finite(name, epoch, last_step - len(places) + 1 + int(first)))


def _not_finite(loss: str, epoch: int, step: int) -> str:
    kept = "the checkpoint of the epoch before it is kept" if epoch > 1 else "there is no checkpoint yet"
    return (
        f"{loss} is not finite in epoch {epoch}, step {step} of the epoch: lower --ae_lr or --d_lr, or raise "
        f"--precision; {kept}"
    )


def generate_and_save(model: nn.Module, epoch: int, summary_writer: SummaryWriter, batch_size: int = 64) -> None:
    """Put a grid of samples into TensorBoard and into `results/Prior_samples/` of its folder.

    The same draws from the prior are decoded each time, so that the grids can be compared, and the random numbers of
    the training are left alone.

    Args:
        model: an `AdversarialAE`.
        epoch: goes into the file's name.
        summary_writer: its `log_dir` is the run's folder.
        batch_size: images in the grid.
    """
    import torch

    from pictures import sample_grid

    device = model.decoder.device
    with _evaluating(model), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        grid = sample_grid(model.sample(batch_size))
    _save(grid, "samples", epoch, summary_writer, f"results/Prior_samples/samples_epoch_{epoch}.png")


def save_reconstruction(model: nn.Module, epoch: int, summary_writer: SummaryWriter, data: Tensor) -> None:
    """Put images above their reconstructions into TensorBoard and into `results/Reconstruction/` of its folder.

    Args:
        model: an `AdversarialAE`.
        epoch: goes into the file's name.
        summary_writer: its `log_dir` is the run's folder.
        data: images, float [N, 1, 28, 28] with values in [-1, 1].
    """
    from pictures import reconstruction_grid

    with _evaluating(model):
        grid = reconstruction_grid(model, data)
    _save(grid, "reconstructions", epoch, summary_writer, f"results/Reconstruction/reconstruction_{epoch}.png")


class _evaluating:
    """While this holds, a model is in evaluation mode; it is left in the mode in which it was."""

    def __init__(self, model: nn.Module):
        self.model, self.was_training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *error) -> None:
        self.model.train(self.was_training)


def _save(grid: Tensor, tag: str, epoch: int, summary_writer: SummaryWriter, file: str) -> None:
    from torchvision.utils import save_image

    path = Path(summary_writer.log_dir, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(grid, path)
    summary_writer.add_image(tag, grid, global_step=epoch)


def main(args: argparse.Namespace) -> dict:
    """Train, evaluating on the test set after each epoch.

    Args:
        args: the flags of `train.py`; a flag that is missing has its default.

    Returns:
        The results that stand in `summary.json`: the last epoch's training means and test scores; empty on processes
        other than the first.

    Raises:
        InputError: a flag, the data, the run to resume or the log folder cannot be used; or a loss is not finite.
        KeyboardInterrupt: it was interrupted, after a message that says how to go on.
    """
    import run_folder

    run_folder.prepare_processor()
    args = completed(args)
    log_dir = beside(args.log_dir, LOG_DIR)
    saved = folder = None
    if args.resume:
        path = run_folder.find_checkpoint(args.resume, log_dir)
        _, saved = run_folder.load_aae(path)
        folder = run_folder.run_of(path, "--resume")
        args = continued(args, saved["flags"])
        complete = (folder / "summary.json").exists()
        if saved["epoch"] > args.epochs or (saved["epoch"] == args.epochs and complete):
            raise InputError(f"the run is done up to epoch {saved['epoch']}: raise --epochs to continue it")
    check(args)
    make_writable(*((folder, "run to --resume") if folder else (log_dir, "--log_dir")))
    args.data_dir = str(beside(args.data_dir, DATA_DIR))
    fabric = start_fabric(args)

    from mnist import load_data
    from training_run import TrainingRun

    failed = None
    with fabric.rank_zero_first():  # which downloads what the others then find
        try:
            loaders = load_data(args, pin_memory=fabric.device.type == "cuda")
        except Exception as error:  # none leaves the block, or the processes would wait for each other in vain
            failed = error
    if isinstance(failed, NoDataError):
        raise NoDataError(f"{failed}, or train on the built-in digits with --dataset digits") from failed
    if failed:
        raise failed
    if fabric.is_global_zero:
        folder = folder or run_folder.new_run(log_dir)
    folder = fabric.broadcast(folder)
    run = TrainingRun(args, fabric, folder, *loaders, saved)
    try:
        return _train(run)
    except KeyboardInterrupt:
        if fabric.is_global_zero:
            log.info("\n%s", run_folder.how_to_go_on(folder, log_dir, args))
        raise
    finally:
        run.close()


def _train(run) -> dict:
    """All epochs that are left, with the pictures in between."""
    fabric = run.fabric

    def draw(epoch: int) -> None:
        if fabric.is_global_zero:
            generate_and_save(run.model, epoch, run.writer)
            save_reconstruction(run.model, epoch, run.writer, run.pictures)

    if run.epoch == 0:
        draw(0)
    while run.epoch < run.args.epochs:
        start = time.perf_counter()
        epoch = run.epoch + 1
        with run.batches(epoch) as batches:
            means = train_aae(epoch, run.wrapped_model, batches, run.logger_ae, run.logger_disc, run.optimizer_ae,
                              run.optimizer_disc, run.args.lambda_, backward=fabric.backward)  # fmt: skip
        if not run.evaluate(epoch, means):
            raise NotFiniteError(_not_finite("test_recon_loss", epoch, run.steps_per_epoch))
        if epoch == 1 or epoch % 5 == 0 or epoch == run.args.epochs:
            draw(epoch)
        run.keep(time.perf_counter() - start)
    return run.finish()


def start_fabric(args: argparse.Namespace) -> Fabric:
    """Fabric for the device, number format and processes that the flags ask for; with several processes it starts
    them.

    Raises:
        InputError: they cannot be had here.
    """
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    for name in ("lightning_fabric", "lightning.fabric", "lightning_utilities"):  # its notes on hardware not there
        logging.getLogger(name).setLevel(logging.WARNING)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    num_gpus = 0 if args.no_cuda else torch.cuda.device_count()
    there = num_gpus or os.cpu_count()
    if args.devices != "auto" and int(args.devices) > there:
        raise InputError(f"--devices is {args.devices}, but this machine has {there}: give at most so many")
    try:
        fabric = Fabric(
            accelerator="cpu" if args.no_cuda else "auto",
            devices=args.devices if args.devices == "auto" else int(args.devices),
            num_nodes=args.num_nodes,
            strategy=resolve_strategy(args, num_gpus),
            precision=args.precision,
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--devices, --num_nodes, --strategy or --precision cannot be used here: {reason}") from error
    if not args.no_cuda and "no_cuda" in args.given and fabric.device.type == "cpu":
        raise InputError("--cuda: PyTorch finds no GPU here: leave the flag out to train on the CPU")
    if args.precision == "64-true" and fabric.device.type == "mps":
        raise InputError("--precision 64-true needs float64, which Apple's GPUs do not have: give --no-cuda")
    fabric.launch()
    return fabric


def cli(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 after one sentence about what cannot be used, or 130 after an
    interruption."""
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        main(args)
    except InputError as error:
        if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")) == "0":  # once, and not from each process
            print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(cli())

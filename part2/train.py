"""Train an adversarial autoencoder on MNIST (questions 2.4 to 2.7).

`python train.py --help` lists the flags; `README.md` lists the files that a run leaves.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Flags come first, since importing PyTorch takes seconds. `python -m` and `python -P` need the path.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from cli import start
    from inputs import parse_args

    ARGS = start(parse_args)

import argparse
import logging
import math
import time
from collections.abc import Callable

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from cli import raise_if_stopped, run_command, stops_as_such
from evaluation import evaluating
from inputs import parse_args, resolve_settings
from pictures import one_of_each_digit, reconstruction_grid, sample_grid, write_picture
from processes import StopRequest, check_compiler, explained_failures
from run_folder import load_aae, resume_hint
from run_record import RunRecord
from training_run import (
    TrainingState,
    configure_cpu,
    epoch_batches,
    log_to_stdout,
    make_loaders,
    score_test_images,
    start_fabric,
    write_results,
)
from utils import EpochMeans, TensorBoardLogger, not_finite_error, raise_if_not_finite

READ_EVERY_N_STEPS = 50  # reading a loss waits for the device
log = logging.getLogger("part2")


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
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> dict[str, float]:
    """Train for one epoch. Each batch takes a step of encoder and decoder (reconstruction, and regularization by the
    generator loss), then a step of the discriminator on the same codes.

    Args:
        epoch: number of the epoch, from 1, for messages.
        model: an `AdversarialAE`, which may be wrapped by Fabric.
        train_loader: batches of images, float [B, 1, 28, 28] with values in [-1, 1], and labels, which are not used.
        logger_ae: gets `gen_loss`, `recon_loss`, `ae_loss` of each step.
        logger_disc: gets `disc_loss`, `loss_real`, `loss_fake`, `accuracy` of each step.
        optimizer_ae: holds the parameters of encoder and decoder.
        optimizer_disc: holds the parameters of the discriminator.
        lambda_: weight of the reconstruction loss in [0, 1]; the generator loss has weight 1 - lambda_.
        backward: computes the gradients of a loss; Fabric has its own.

    Returns:
        The means of all seven values over the images of the epoch.

    Raises:
        NotFiniteError: a loss is NaN or infinite.
    """
    device = model.decoder.device
    model.train()
    means, step = EpochMeans(), 0
    for step, (x, _) in enumerate(train_loader, start=1):
        raise_if_stopped()
        x = x.to(device, non_blocking=True)  # (B, 1, 28, 28)

        # Encoder and decoder: λ · reconstruction loss + (1 - λ) · generator loss
        recon_x, z_fake = model(x)
        ae_loss, ae_values = model.get_loss_autoencoder(x, recon_x, z_fake, lambda_)
        optimizer_ae.zero_grad(set_to_none=True)
        backward(ae_loss)
        optimizer_ae.step()

        # Discriminator: draws from the prior are real, codes are fake
        disc_loss, disc_values = model.get_loss_discriminator(z_fake.detach())
        optimizer_disc.zero_grad(set_to_none=True)
        backward(disc_loss)
        optimizer_disc.step()

        logger_ae.add_values(ae_values)
        logger_disc.add_values(disc_values)
        means.add({**ae_values, **disc_values}, size=len(x))
        if step % READ_EVERY_N_STEPS == 0:
            raise_if_not_finite(means.read(), epoch, step, device)
    raise_if_not_finite(means.read(), epoch, step, device)
    return means.means()


def generate_and_save(model: nn.Module, epoch: int, summary_writer: SummaryWriter, batch_size: int = 64) -> None:
    """Write a grid of samples to TensorBoard and to `results/Prior_samples/` in its directory.

    The same draws from the prior are decoded each time, so that the grids of different epochs can be compared. The
    random state of the training is not touched.

    Args:
        model: an `AdversarialAE`.
        epoch: part of the file's name.
        summary_writer: its `log_dir` is the run directory.
        batch_size: number of samples.
    """
    with evaluating(model, seed=0):
        grid = sample_grid(model.sample(batch_size))
    _save(grid, "samples", epoch, summary_writer, f"results/Prior_samples/samples_epoch_{epoch}.png")


def save_reconstruction(model: nn.Module, epoch: int, summary_writer: SummaryWriter, data: Tensor) -> None:
    """Write a grid of images, each above its reconstruction, to TensorBoard and to `results/Reconstruction/` in its
    directory.

    If the encoder is not deterministic, it gets the same noise each time, so that the grids of different epochs can be
    compared. The random state of the training is not touched.

    Args:
        model: an `AdversarialAE`.
        epoch: part of the file's name.
        summary_writer: its `log_dir` is the run directory.
        data: images, float [N, 1, 28, 28] with values in [-1, 1].
    """
    with evaluating(model):
        grid = reconstruction_grid(model, data)
    _save(grid, "reconstructions", epoch, summary_writer, f"results/Reconstruction/reconstruction_{epoch}.png")


def _save(grid: Tensor, tag: str, epoch: int, summary_writer: SummaryWriter, file: str) -> None:
    path = Path(summary_writer.log_dir, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, grid)
    summary_writer.add_image(tag, grid, global_step=epoch)


def main(args: argparse.Namespace) -> dict:
    """Train, and evaluate on the test set after each epoch.

    Args:
        args: flags of `train.py`; a missing flag has its default.

    Returns:
        The results in `summary.json`: the last epoch's training losses and test scores; empty on processes other than
        the first.

    Raises:
        InputError: a flag, the data, the run to resume or the log directory cannot be used; or a loss is not finite.
        KeyboardInterrupt, SystemExit: a signal has ended the training; a message has told how to resume it.
    """
    log_to_stdout()
    configure_cpu()
    settings = resolve_settings(args, read_checkpoint=lambda path: load_aae(path)[1])
    check_compiler(settings)
    with explained_failures(lower="--batch_size or --z_dim"):
        return _train(settings)


def _train(settings: argparse.Namespace) -> dict:
    fabric = start_fabric(settings)
    train_loader, test_loader = make_loaders(settings, fabric)
    with RunRecord(settings, fabric) as record:
        try:
            with stops_as_such(), StopRequest() as request:
                return _train_epochs(settings, fabric, record, train_loader, test_loader, request)
        except (KeyboardInterrupt, SystemExit) as stop:
            if fabric.is_global_zero:
                log.info("\n%s", resume_hint(record.run_dir, settings))
            stop.explained = True
            raise


def _train_epochs(settings, fabric, record: RunRecord, train_loader, test_loader, request: StopRequest) -> dict:
    state = TrainingState(settings, fabric, record.writer)
    record.begin(state)
    shown = one_of_each_digit(*test_loader.dataset[:])  # (10, 1, 28, 28)
    if record.epoch == 0:
        _save_pictures(state.model, 0, record.writer, shown)
    for epoch in range(record.epoch + 1, settings.epochs + 1):
        start = time.perf_counter()
        with epoch_batches(train_loader, settings, fabric, epoch) as batches:
            means = train_aae(epoch, state.wrapped_model, batches, state.logger_ae, state.logger_disc,
                              state.optimizer_ae, state.optimizer_disc, settings.lambda_,
                              backward=fabric.backward)  # fmt: skip
        scores = score_test_images(state.model, test_loader, fabric)
        if not math.isfinite(scores["recon_loss"]):
            raise not_finite_error("test_recon_loss", epoch, step=len(train_loader))
        if has_pictures(epoch, settings.epochs):
            _save_pictures(state.model, epoch, record.writer, shown)
        record.add_epoch(state, means, scores, seconds=time.perf_counter() - start)
        if epoch < settings.epochs:
            request.stop_if_asked(fabric.device)
    return write_results(record, state, test_loader)


def has_pictures(epoch: int, last_epoch: int) -> bool:
    """Whether pictures are saved: before training (epoch 0), after epoch 1, every fifth epoch, and the last."""
    return epoch == 1 or epoch % 5 == 0 or epoch == last_epoch


def _save_pictures(model: nn.Module, epoch: int, summary_writer: SummaryWriter | None, data: Tensor) -> None:
    if summary_writer is not None:
        generate_and_save(model, epoch, summary_writer)
        save_reconstruction(model, epoch, summary_writer, data)


def cli(args: argparse.Namespace | list[str] | None = None) -> int:
    """Run the command line, parsed or not. Returns the exit code: 0; 2 after one sentence about bad input; 130, 143 or
    138 after SIGINT, SIGTERM or SIGUSR1."""
    if not isinstance(args, argparse.Namespace):
        args = parse_args(args)
    return run_command(main, args, "train.py")


if __name__ == "__main__":
    raise SystemExit(cli(ARGS))

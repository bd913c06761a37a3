"""Train an adversarial autoencoder on MNIST (questions 2.4 to 2.7).

`python train.py --help` lists the flags; `README.md` lists the files that a run leaves.
"""

from args import CHECKPOINT, complete_args, parse_args

if __name__ == "__main__":
    ARGS = parse_args()  # first, since importing PyTorch takes seconds

import argparse
import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from encoders import build_aae
from evaluation import evaluating, score_test_images, write_results
from mnist import load_data
from models import AdversarialAE
from pictures import first_of_each_digit, reconstruction_grid, sample_grid, write_picture
from run import InputError, atomic_write, cluster_environment, device_name, open_run, read_checkpoint, run_command
from utils import TensorBoardLogger, check_finite, record_epoch

CHECK_EVERY_N_STEPS = 50  # reading a loss waits for the device
WANTED = ("state_dict", "hyper_parameters", "optimizer_ae", "optimizer_disc", "precision", "logger_ae", "logger_disc",
          "epoch", "flags", "rows", "seconds")  # in a checkpoint  # fmt: skip
LAYOUT = {"adversarial game": {"losses": ["Multiline", [  # one chart of both players, in "Custom scalars"
    "generator/gen_loss", "discriminator/loss_real", "discriminator/loss_fake"]]}}  # fmt: skip


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
        InputError: a loss is NaN or infinite.
    """
    device = model.decoder.device
    model.train()
    losses, sizes = [], []  # of each step
    for step, (x, _) in enumerate(train_loader, start=1):
        x = x.to(device, non_blocking=True)  # (B, 1, 28, 28)

        # Encoder and decoder: λ · reconstruction loss + (1 - λ) · generator loss
        recon_x, z_fake = model(x)
        ae_loss, ae_values = model.get_loss_autoencoder(x, recon_x, z_fake, lambda_)
        optimizer_ae.zero_grad(set_to_none=True)
        backward(ae_loss)
        optimizer_ae.step()

        # Discriminator: draws from the prior are real, codes are fake. The generator's gradients are dropped.
        disc_loss, disc_values = model.get_loss_discriminator(z_fake.detach())
        optimizer_disc.zero_grad(set_to_none=True)
        backward(disc_loss)
        optimizer_disc.step()

        logger_ae.add_values(ae_values)
        logger_disc.add_values(disc_values)
        values = {**ae_values, **disc_values}
        losses.append(torch.stack([*values.values()]))  # (7) on the device
        sizes.append(len(x))
        if step % CHECK_EVERY_N_STEPS == 0:
            check_finite(values, f"epoch {epoch}, step {step} of the epoch")
    weights = torch.tensor(sizes, dtype=torch.float64)
    means = weights @ torch.stack(losses).cpu().double() / weights.sum()
    return dict(zip(values, means.tolist(), strict=True))


def generate_and_save(
    model: nn.Module, epoch: int, summary_writer: SummaryWriter, batch_size: int = 64, step: int | None = None
) -> None:
    """Write a grid of samples to TensorBoard and to `results/Prior_samples/` in its directory. Each grid is of the same
    draws from the prior. The random state of the training does not change.

    Args:
        model: an `AdversarialAE`.
        epoch: part of the file's name.
        summary_writer: its `log_dir` is the run directory.
        batch_size: number of samples.
        step: the place in TensorBoard; by default the epoch.
    """
    with evaluating(model, seed=0):
        grid = sample_grid(model.sample(batch_size))
    write_picture(Path(summary_writer.log_dir, f"results/Prior_samples/samples_epoch_{epoch}.png"), grid)
    summary_writer.add_image("samples", grid, global_step=epoch if step is None else step)


def save_reconstruction(
    model: nn.Module, epoch: int, summary_writer: SummaryWriter, data: Tensor, step: int | None = None
) -> None:
    """Write a grid of images, each above its reconstruction, to TensorBoard and to `results/Reconstruction/` in its
    directory. The encoder has the same noise each time, if any. The random state of the training does not change.

    Args:
        model, epoch, summary_writer, step: as of `generate_and_save`.
        data: images, float [N, 1, 28, 28] with values in [-1, 1].
    """
    with evaluating(model):
        grid = reconstruction_grid(model, data)
    write_picture(Path(summary_writer.log_dir, f"results/Reconstruction/reconstruction_{epoch}.png"), grid)
    summary_writer.add_image("reconstructions", grid, global_step=epoch if step is None else step)


def make_optimizers(model: AdversarialAE, ae_lr: float, d_lr: float) -> tuple[Adam, SGD]:
    """Adam for encoder and decoder, with the beta1 that is usual in adversarial training, and plain SGD for the
    discriminator."""
    autoencoder = [*model.encoder.parameters(), *model.decoder.parameters()]
    optimizer_ae = Adam(autoencoder, lr=ae_lr, betas=(0.5, 0.999), fused=True)
    return optimizer_ae, SGD(model.discriminator.parameters(), lr=d_lr, fused=True)


def load_aae(path: Path) -> tuple[AdversarialAE, dict]:
    """The model of a checkpoint, on the CPU and in evaluation mode, and the checkpoint's content. Raises InputError
    where the file cannot be read, or is not a checkpoint of this model."""
    checkpoint = read_checkpoint(path, WANTED, part="part 2")
    try:
        model = build_aae(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path} is a checkpoint of another model: choose one that part 2 wrote") from error
    return model.eval(), checkpoint


def main(args: argparse.Namespace) -> dict:
    """Train, evaluate on the test set after each epoch, and write the results.

    Args:
        args: flags of `train.py`; a missing flag has its default.

    Returns:
        The last epoch's training losses and test scores; empty on processes other than the first.

    Raises:
        InputError: a flag, the data, the run to resume or the log directory cannot be used, or a loss is not finite.
        KeyboardInterrupt, SystemExit: a signal has ended the training; a message has told how to resume it.
    """
    args, run_dir, saved = complete_args(args, read=lambda path: load_aae(path)[1])
    finished = saved["epoch"] if saved else 0
    if finished > args.epochs or (finished == args.epochs and (run_dir / "summary.json").exists()):
        raise InputError(f"the run has already finished epoch {finished}: raise --epochs to continue it")
    one_device = args.strategy == "auto" and args.devices == args.num_nodes == 1
    try:
        fabric = Fabric(
            accelerator="cpu" if args.no_cuda else "auto",
            devices=args.devices,
            num_nodes=args.num_nodes,
            # Each step trains one player: the parameters of the other have no gradients.
            strategy="auto" if one_device else "ddp_find_unused_parameters_true",
            precision=args.precision,
            plugins=cluster_environment(args),
        )
        fabric.launch()
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise InputError(f"--devices, --num_nodes, --strategy or --precision: {error}") from error
    if args.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(args.deterministic)
    torch.backends.cudnn.benchmark = not args.deterministic

    train_loader, test_loader = load_data(args, fabric.device, fabric.global_rank, fabric.world_size)
    torch.manual_seed(args.seed)
    model = build_aae(args.z_dim, args.encoder).to(memory_format=torch.channels_last)
    if args.compile:
        for network in (model.encoder, model.decoder, model.discriminator):
            network.compile()
    wrapped_model, optimizer_ae, optimizer_disc = fabric.setup(model, *make_optimizers(model, args.ae_lr, args.d_lr))
    for method in ("get_loss_autoencoder", "get_loss_discriminator"):  # their gradients are averaged over the devices
        wrapped_model.mark_forward_method(method)

    first = fabric.is_global_zero
    start_step = saved["logger_ae"]["global_step"] if saved else 0
    with (
        open_run(Path(args.log_dir), run_dir) if first else contextlib.nullcontext() as directory,
        SummaryWriter(directory, purge_step=start_step + 1) if first else contextlib.nullcontext() as board,
    ):
        logger_ae, logger_disc = (TensorBoardLogger(board, name=name) for name in ("generator", "discriminator"))
        state = {"state_dict": model, "optimizer_ae": optimizer_ae, "optimizer_disc": optimizer_disc,
                 "logger_ae": logger_ae, "logger_disc": logger_disc,
                 "precision": fabric.strategy.precision}  # fmt: skip
        rows, seconds = (saved["rows"], saved["seconds"]) if saved else ([], [])
        for name, part in state.items():
            if saved and saved[name]:  # the precision has a state in 16-mixed only
                part.load_state_dict(saved[name])
        shown = first_of_each_digit(*test_loader.dataset[:])  # (10, 1, 28, 28)
        if first:
            atomic_write(directory / "hparams.json", json.dumps(vars(args), indent=2) + "\n")
            size = sum(parameter.numel() for parameter in model.parameters())
            print(f"{size:,} parameters; on {device_name(fabric.device)}; run directory: {directory}", flush=True)
            if not saved:
                board.add_custom_scalars(LAYOUT)
                generate_and_save(model, 0, board)
                save_reconstruction(model, 0, board, shown)
        for epoch in range(finished + 1, args.epochs + 1):
            start = time.perf_counter()
            # A resumed run has the batches and the noise of an uninterrupted one; each process has its own noise.
            train_loader.sampler.set_epoch(epoch - 1)
            torch.manual_seed((args.seed * 1_000_003 + epoch) * 1_009 + fabric.global_rank)
            hidden = not (first and (args.progress_bar or sys.stdout.isatty()))
            batches = tqdm(train_loader, f"epoch {epoch}/{args.epochs}", disable=hidden, leave=False, mininterval=0.5)
            means = train_aae(epoch, wrapped_model, batches, logger_ae, logger_disc, optimizer_ae, optimizer_disc,
                              args.lambda_, backward=fabric.backward)  # fmt: skip
            if fabric.world_size > 1:
                means = {name: mean.item() for name, mean in fabric.all_reduce(means).items()}
            scores = fabric.broadcast(score_test_images(model, test_loader) if first else None)
            row = {"epoch": epoch, "step": logger_ae.global_step}
            row |= {f"train_{name}": mean for name, mean in means.items()}
            row |= {f"test_{name}": score for name, score in scores.items()}
            check_finite(row, f"epoch {epoch}")
            rows.append(row)
            seconds.append(time.perf_counter() - start)
            if not first:
                continue
            if epoch == 1 or epoch % 5 == 0 or epoch == args.epochs:
                generate_and_save(model, epoch, board, step=row["step"])
                save_reconstruction(model, epoch, board, shown, step=row["step"])
            record_epoch(args, directory, board, rows, seconds)
            checkpoint = {name: part.state_dict() for name, part in state.items()}
            checkpoint |= {"hyper_parameters": {"z_dim": args.z_dim, "encoder": args.encoder}, "epoch": epoch,
                           "rows": rows, "seconds": seconds, "flags": vars(args)}  # fmt: skip
            file = io.BytesIO()
            torch.save(checkpoint, file)
            atomic_write(directory / CHECKPOINT, file.getbuffer())
        if not first:
            return {}
        return write_results(args, directory, board, rows, seconds, model, test_loader, fabric.world_size)


if __name__ == "__main__":
    raise SystemExit(run_command(main, ARGS))

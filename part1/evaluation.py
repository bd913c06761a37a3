"""Evaluation of a trained VAE: importance-weighted bounds on the likelihood, codes, and what a training writes at its
end."""

import math
import shutil
import statistics
from pathlib import Path

import matplotlib.style
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from pictures import plot_bpd_curve, plot_codes, write_picture
from run import device_name, write_summary
from utils import elbo_to_bpd, reconstruction_loss, visualize_manifold

PROJECTED = 1000  # test images in TensorBoard's projector; all 10,000 would take 0.7 GB and load slowly


@torch.no_grad()
def log_importance_weights(model, imgs: Tensor, num_samples: int) -> Tensor:
    """log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x) with z_k ~ q(z|x), in nats.

    The mean of w_k is an unbiased estimate of p(x), the mean of log w_k one of the ELBO.

    Args:
        model: has `encoder` and `decoder`.
        imgs: long [B, 1, 28, 28] with values 0 .. 15.
        num_samples: number K of samples for each image.

    Returns:
        [K, B].
    """
    mean, log_std = model.encoder(imgs)
    eps = torch.randn(num_samples, *mean.shape, device=mean.device, dtype=mean.dtype)  # (K, B, D)
    z = mean + log_std.exp() * eps
    nll = reconstruction_loss(model.decoder(z.flatten(end_dim=1)), imgs.repeat(num_samples, 1, 1, 1))  # (K*B)
    log_ratio = (0.5 * (eps.square() - z.square()) + log_std).sum(dim=-1)  # (K, B), log p(z) - log q(z|x)
    return log_ratio - nll.view(num_samples, -1)


def importance_weighted_bound(model, loader: DataLoader, num_samples: int, largest_batch: int = 1024) -> float:
    """Importance-weighted bound on the negative log-likelihood (Burda, Grosse and Salakhutdinov, 2016, eq. 8):

        -E log 1/K sum_k w_k

    For K = 1 it is the negative ELBO. It decreases towards -log p(x) as K grows.

    Args:
        model: has `encoder` and `decoder`.
        loader: batches of (images, labels).
        num_samples: K.
        largest_batch: number of images that the decoder computes at once; at least the loader's batch size.

    Returns:
        The mean over all images, in nats per image.
    """
    device = model.decoder.device
    total, count = 0.0, 0
    for imgs, _ in loader:
        imgs = imgs.to(device)
        step = max(1, largest_batch // len(imgs))
        log_sum = torch.full((len(imgs),), -math.inf, dtype=torch.float64)
        for done in range(0, num_samples, step):
            log_w = log_importance_weights(model, imgs, min(step, num_samples - done))  # (step, B)
            log_sum = torch.logaddexp(log_sum, log_w.cpu().double().logsumexp(dim=0))
        total += (math.log(num_samples) - log_sum).sum().item()
        count += len(imgs)
    return total / count


@torch.no_grad()
def encode(model, loader: DataLoader) -> tuple[Tensor, Tensor]:
    """Posterior means of all images of a loader, and the images' labels.

    Returns:
        On the CPU: means, float [N, z_dim]; labels, long [N].
    """
    device = model.decoder.device
    batches = [(model.encoder(imgs.to(device))[0].cpu(), labels.cpu()) for imgs, labels in loader]
    means, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return means, labels


@matplotlib.style.context("default")  # not the user's
def write_results(trainer, record, vae, best_epoch: int, loader: DataLoader, results: dict[str, float]) -> None:
    """Write pictures, codes and scores of the tested model into the run directory, and `summary.json` last. In
    TensorBoard, they stand after the last epoch.

    Args:
        trainer: Lightning's, of the training.
        record: its `RunRecord`.
        vae: the model with the lowest validation bpd.
        best_epoch: the epoch that it is of.
        loader: the test images.
        results: Lightning's test result.
    """
    args, run_dir, board = record.args, Path(trainer.logger.log_dir), trainer.logger.experiment
    place, results, device = args.epochs + 1, dict(results), trainer.strategy.root_device
    vae.to(device)
    with isolate_rng(include_cuda=device.type == "cuda"):
        torch.manual_seed(args.seed)
        if args.importance_samples:
            nll = importance_weighted_bound(vae, loader, args.importance_samples)
            results["importance_samples"], results["test_importance_weighted_nll"] = args.importance_samples, nll
            results["test_importance_weighted_bpd"] = elbo_to_bpd(nll, (1, 1, 28, 28))
        codes, labels = encode(vae, loader)
    write_codes(run_dir, board, place, codes, labels, loader)
    figures = {"bpd_curve": plot_bpd_curve(record.rows, results["test_bpd"])}
    if args.z_dim == 2:
        manifold = visualize_manifold(vae.decoder, grid_size=20)
        write_picture(run_dir / "vae_manifold.png", manifold)
        board.add_image("Manifold", manifold, global_step=place)
        figures["codes"] = plot_codes(codes, labels)
    for name, figure in figures.items():
        write_picture(run_dir / f"{name}.png", figure)
        board.add_figure(name, figure, global_step=place)
    board.flush()
    write_summary(run_dir, args, {
        **results,
        "best_epoch": best_epoch,
        "best_val_bpd": record.rows[best_epoch - 1]["val_bpd"],
        "train_bpd": record.rows[-1]["train_bpd"],
        "epochs": len(record.rows),
        "train_seconds": round(sum(record.seconds), 1),
        "median_epoch_seconds": round(statistics.median(record.seconds), 2),
        "device": device_name(device),
        "num_devices": trainer.world_size,
    })  # fmt: skip
    score = f"{results['test_bpd']:.4f} bpd (best epoch {best_epoch} of {args.epochs})"
    if args.importance_samples:
        bound = f"{results['test_importance_weighted_bpd']:.4f}"
        score += f"; importance-weighted with {args.importance_samples} samples {bound} bpd"
    print(f"test: {score}; pictures and numbers are in {run_dir}")


def write_codes(run_dir: Path, board: SummaryWriter, place: int, codes: Tensor, labels: Tensor, loader) -> None:
    """Write the first test images, their codes [N, z_dim] and labels [N] for TensorBoard's projector."""
    images = loader.dataset[:PROJECTED][0].cpu() / 15
    points = codes[:PROJECTED]
    points = F.pad(points, (0, max(0, 3 - points.size(1))))  # the projector draws nothing in fewer than 3 dimensions
    shutil.rmtree(run_dir / f"{place:05}", ignore_errors=True)  # those of an earlier test of this run
    board.add_embedding(points, labels[:PROJECTED].tolist(), images, global_step=place, tag="codes")

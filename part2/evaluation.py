"""Evaluation of a model on test images: reconstruction error, distance of the codes from the prior N(0, I), and what a
training writes at its end."""

import argparse
import contextlib
import shutil
import statistics
from pathlib import Path

import matplotlib.style
import torch
import torch.nn.functional as F
from scipy.stats import kstest
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from pictures import manifold_grid, plot_codes, plot_curves, write_picture
from run import device_name, write_summary

PROJECTED = 1000  # test images in TensorBoard's projector; all 10,000 would take 0.7 GB and load slowly
RECONSTRUCTION_GOAL = 0.05  # question 2.5: the reconstruction loss should fall below this
NOISE_SEED = 2015  # other numbers than the seeds 0 and 42 of samples, which would repeat in the encoder's noise


@contextlib.contextmanager
def evaluating(model, seed: int = NOISE_SEED):
    """Context in which a model, with `decoder.device`, is in evaluation mode, without gradients, and draws the random
    numbers of `seed`. At the end its mode and the random state are those of before: a training is not disturbed."""
    device, was_training = model.decoder.device, model.training
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        model.train(was_training)


@torch.no_grad()
def encode(model, loader: DataLoader) -> tuple[Tensor, Tensor, float]:
    """Codes and reconstruction error of all images of a loader.

    An encoder that is not deterministic gives one draw from q(z|x) for each image. All codes together are then draws
    from the aggregated posterior q(z), which training matches to the prior.

    Args:
        model: has `encoder` and `decoder`.
        loader: batches of images, float [B, 1, 28, 28] with values in [-1, 1], and labels.

    Returns:
        On the CPU: codes, float32 [N, z_dim]; labels, long [N]; and the mean squared error over images and pixels.
    """
    device = model.decoder.device
    codes, labels, squared_error, num_values = [], [], torch.zeros((), device=device), 0
    for x, y in loader:
        x = x.to(device)
        z = model.encoder(x)
        squared_error += (model.decoder(z).float() - x).square().sum()
        num_values += x.numel()
        codes.append(z.float())
        labels.append(y)
    return torch.cat(codes).cpu(), torch.cat(labels).cpu(), squared_error.item() / num_values


def kolmogorov_smirnov(values: Tensor) -> Tensor:
    """Kolmogorov-Smirnov distance sup_v |F_N(v) - Φ(v)| of each column of values [N, D] from N(0, 1): float64 [D] in
    [0, 1], 0 for equal distributions, NaN for a column with a NaN."""
    # "asymp" is the fastest way to the p-value, which is not used.
    return torch.as_tensor(kstest(values.double().numpy(), "norm", axis=0, method="asymp").statistic)


def distances_to_prior(codes: Tensor) -> dict[str, float]:
    """Distances of the distribution of codes [N, D] from N(0, I); 0 for equal distributions.

    Returns:
        `mean_error`: ||mean(z)||; `covariance_error`: Frobenius norm ||cov(z) - I||; `ks_mean`, `ks_max`: mean and
        maximum over the dimensions of the Kolmogorov-Smirnov distance to N(0, 1). All four are small only if the
        moments and the marginal distributions agree.
    """
    codes = codes.double()
    ks, covariance = kolmogorov_smirnov(codes), torch.cov(codes.T)  # (D), (D, D)
    return {
        "mean_error": codes.mean(dim=0).norm().item(),
        "covariance_error": (covariance - torch.eye(codes.shape[1])).norm().item(),
        "ks_mean": ks.mean().item(),
        "ks_max": ks.max().item(),
    }


def score_test_images(model, loader: DataLoader) -> dict[str, float]:
    """`recon_loss` of the test images, and the distances of their codes from the prior."""
    with evaluating(model):
        codes, _, recon_loss = encode(model, loader)
    return {"recon_loss": recon_loss, **distances_to_prior(codes)}


@matplotlib.style.context("default")  # not the user's
def write_results(
    args: argparse.Namespace,
    run_dir: Path,
    board: SummaryWriter,
    rows: list[dict],
    seconds: list[float],
    model,
    loader: DataLoader,
    num_devices: int,
) -> dict:
    """Write curves, codes and the latent plane into the run directory, and `summary.json` last. In TensorBoard, they
    stand after the last step.

    Args:
        args, run_dir, board, rows, seconds: as of `utils.record_epoch`.
        model, loader: the trained model and the test images.
        num_devices: on which the model was trained.

    Returns:
        The last epoch's training losses and test scores, and the Kolmogorov-Smirnov distance of each dimension.
    """
    place = rows[-1]["step"] + 1
    with evaluating(model):
        codes, labels, _ = encode(model, loader)
    images = loader.dataset[:PROJECTED][0].cpu() / 2 + 0.5
    points = F.pad(codes[:PROJECTED], (0, max(0, 3 - args.z_dim)))  # the projector draws nothing in fewer than 3
    shutil.rmtree(run_dir / f"{place:05}", ignore_errors=True)  # the projector's files of an earlier end of this run
    board.add_embedding(points, labels[:PROJECTED].tolist(), images, global_step=place, tag="codes")
    figures = {"curves": plot_curves(rows)}
    if args.z_dim == 2:
        figures["codes"] = plot_codes(codes, labels)
        manifold = manifold_grid(model.decoder)
        write_picture(run_dir / "manifold.png", manifold)
        board.add_image("manifold", manifold, global_step=place)
    for name, figure in figures.items():
        write_picture(run_dir / f"{name}.png", figure)
        board.add_figure(name, figure, global_step=place)
    board.flush()
    results = {name: value for name, value in rows[-1].items() if name not in ("epoch", "step")}
    results["test_ks"] = kolmogorov_smirnov(codes).tolist()
    below = [row["epoch"] for row in rows if row["train_recon_loss"] < RECONSTRUCTION_GOAL]
    write_summary(run_dir, args, {
        **results,
        "first_epoch_below_0_05": below[0] if below else None,
        "epochs": len(rows),
        "train_seconds": round(sum(seconds), 1),
        "median_epoch_seconds": round(statistics.median(seconds), 2),
        "device": device_name(model.decoder.device),
        "num_devices": num_devices,
    })  # fmt: skip
    print(f"test: reconstruction {results['test_recon_loss']:.4f}, Kolmogorov-Smirnov distance to the prior "
          f"{results['test_ks_mean']:.3f}; pictures and numbers are in {run_dir}", flush=True)  # fmt: skip
    return results

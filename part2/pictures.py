"""Pictures of an autoencoder: grids of images, training curves, and the latent plane.

Images have values in [-1, 1], as in the networks; grids have values in [0, 1], as in image files.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.stats import norm
from torch import Tensor, nn
from torchvision.utils import make_grid, save_image

from run_files import atomic_write

# One colour for each digit, chosen to differ for colour-blind readers, too.
DIGIT_COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777",
)  # fmt: skip


def sample_grid(images: Tensor, nrow: int = 8) -> Tensor:
    """Images in a grid. The grey value is x / 2 + 0.5, so that pictures can be compared.

    Args:
        images: float [B, 1, H, W] with values in [-1, 1].
        nrow: images in a row.

    Returns:
        A picture [3, H', W'] in [0, 1], on the CPU.
    """
    return make_grid(images.detach().float().cpu() / 2 + 0.5, nrow=nrow, pad_value=0.5)


def one_of_each_digit(images: Tensor, labels: Tensor) -> Tensor:
    """The first image of each digit 0 .. 9, [10, 1, H, W]."""
    return torch.stack([images[labels == digit][0] for digit in range(10)])


@torch.no_grad()
def reconstruction_grid(model, images: Tensor, nrow: int = 10) -> Tensor:
    """Images above their reconstructions.

    Args:
        model: has `encoder` and `decoder`.
        images: float [N, 1, H, W] with values in [-1, 1].
        nrow: images in a row; further images start a new pair of rows.

    Returns:
        A picture [3, H', W'] in [0, 1].
    """
    decoded = model.decoder(model.encoder(images.to(model.decoder.device))).float().cpu()
    nrow = min(nrow, len(images))
    missing = -len(images) % nrow
    both = F.pad(torch.stack([images.float().cpu(), decoded]), (0, 0) * 3 + (0, missing))  # (2, N', 1, H, W)
    rows = both.unflatten(1, (-1, nrow)).transpose(0, 1)  # (N' / nrow, 2, nrow, 1, H, W)
    return sample_grid(rows.flatten(end_dim=2), nrow=nrow)


@torch.no_grad()
def interpolation_grid(
    model, images: Tensor, labels: Tensor, digits: tuple[int, int], steps: int = 10, rows: int = 8
) -> Tensor:
    """Decoded points on straight lines between codes of two digits. Row i connects the i-th images of both digits.

    Args:
        model: has `encoder` and `decoder`.
        images: float [N, 1, H, W] with values in [-1, 1].
        labels: long [N].
        digits: the digits at the left and at the right end.
        steps: points on a line, both ends included.
        rows: number of lines; fewer if a digit has fewer images.

    Returns:
        A picture [3, H', W'] in [0, 1].
    """
    device = model.decoder.device
    rows = min(rows, *(int((labels == digit).sum()) for digit in digits))
    left, right = (model.encoder(images[labels == digit][:rows].to(device)) for digit in digits)  # (rows, D)
    share = torch.linspace(0, 1, steps, device=device).view(1, steps, 1)
    codes = torch.lerp(left.unsqueeze(1), right.unsqueeze(1), share)  # (rows, steps, D)
    return sample_grid(model.decoder(codes.flatten(end_dim=1)), nrow=steps)


@torch.no_grad()
def manifold_grid(decoder: nn.Module, grid_size: int = 20) -> Tensor:
    """Decoded points of a latent plane.

    The points on both axes are the percentiles (i + 0.5) / grid_size of N(0, 1), i = 0 .. grid_size - 1, so that each
    image stands for the same probability under the prior. z_1 grows from left to right, z_2 from top to bottom.

    Args:
        decoder: maps z [B, 2] to images [B, 1, H, W] in [-1, 1] and has a property `device`.
        grid_size: points on each axis.

    Returns:
        A picture [3, H', W'] in [0, 1].
    """
    percentiles = (torch.arange(grid_size, dtype=torch.float64) + 0.5) / grid_size
    axis = torch.as_tensor(norm.ppf(percentiles.numpy()), dtype=torch.float32)  # (grid_size)
    z_1, z_2 = torch.meshgrid(axis, axis, indexing="xy")
    z = torch.stack([z_1.flatten(), z_2.flatten()], dim=-1).to(decoder.device)  # (grid_size^2, 2)
    return sample_grid(decoder(z), nrow=grid_size)


def plot_curves(rows: list[dict[str, float]]) -> Figure:
    """Curves over the epochs: reconstruction, losses of both players, accuracy, distance of the codes to the prior.

    Args:
        rows: one dictionary for each epoch, as in `metrics.csv`.
    """
    panels = {
        "reconstruction [mean squared error]": [("train_recon_loss", "training"), ("test_recon_loss", "test")],
        "adversarial losses [nats]": [
            ("train_gen_loss", "generator"), ("train_loss_real", "discriminator, real"),
            ("train_loss_fake", "discriminator, fake"),
        ],
        "accuracy of the discriminator": [("train_accuracy", "training")],
        "codes of the test images, distance to N(0, I)": [
            ("test_mean_error", "mean"), ("test_covariance_error", "covariance"),
            ("test_ks_max", "Kolmogorov-Smirnov, largest"),
        ],
    }  # fmt: skip
    undecided = {"adversarial losses [nats]": math.log(2), "accuracy of the discriminator": 0.5}
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 12 else ""
    for axes, (title, lines) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for colour, (name, label) in zip(("#0072B2", "#D55E00", "#009E73"), lines, strict=False):
            axes.plot(epochs, [row[name] for row in rows], color=colour, marker=marker, label=label)
        if title in undecided:
            axes.axhline(undecided[title], color="black", linestyle="--", linewidth=1, label="cannot tell")
        if "distance" in title:
            axes.set_yscale("log")
            bottom, top = axes.get_ylim()
            axes.set_ylim(top=top * (top / bottom) ** 0.45)  # room for the legend
        elif "error" in title:
            axes.set_ylim(bottom=0)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    return figure


def plot_codes(codes: Tensor, labels: Tensor) -> Figure:
    """Codes in a latent plane, coloured by digit; the axes point in the same directions as in `manifold_grid`.

    Args:
        codes: float [N, 2].
        labels: long [N] with values 0 .. 9.
    """
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    for digit, colour in enumerate(DIGIT_COLOURS):
        points = codes[labels == digit]
        axes.scatter(points[:, 0], points[:, 1], s=4, color=colour, label=str(digit), linewidths=0)
    angle = torch.linspace(0, 2 * torch.pi, 200)
    for radius in (1.0, 2.0, 3.0):
        axes.plot(radius * angle.cos(), radius * angle.sin(), color="black", linewidth=0.6, linestyle=":")
    axes.set(xlabel="$z_1$", ylabel="$z_2$", title="Codes of the test images; circles: 1, 2, 3 prior std")
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.legend(title="digit", markerscale=4, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def write_picture(path: Path, picture: Tensor | Figure) -> None:
    """Write a PNG file, in one step: an image [C, H, W] with values in [0, 1], or a figure."""

    def write(file) -> None:
        if isinstance(picture, Figure):
            picture.savefig(file, format="png", dpi=150)
        else:
            save_image(picture, file, format="png")

    atomic_write(path, write, mode="wb")

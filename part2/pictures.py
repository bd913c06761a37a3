"""Pictures of an autoencoder: grids of images, training curves, and the latent plane.

Images have values in [-1, 1], as in the networks; grids have values in [0, 1], as in image files.
"""

import io
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.stats import norm
from torch import Tensor, nn
from torchvision.utils import make_grid, save_image

from run import atomic_write

# One colour for each digit, chosen to differ for colour-blind readers, too.
DIGIT_COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777",
)  # fmt: skip


def sample_grid(images: Tensor, nrow: int = 8) -> Tensor:
    """One picture, [3, H', W'] in [0, 1] on the CPU, of images, float [B, 1, H, W] with values in [-1, 1]."""
    return make_grid(images.detach().float().cpu() / 2 + 0.5, nrow=nrow, pad_value=0.5)


def first_of_each_digit(images: Tensor, labels: Tensor, count: int = 1) -> Tensor:
    """The first `count` images of each digit, [count * 10, 1, H, W], in rows of the digits 0 .. 9."""
    chosen = torch.stack([images[labels == digit][:count] for digit in range(10)], dim=1)  # (count, 10, 1, H, W)
    return chosen.flatten(end_dim=1)


@torch.no_grad()
def reconstruction_grid(model, images: Tensor, nrow: int = 10) -> Tensor:
    """A picture, [3, H', W'] in [0, 1], of images, float [N, 1, H, W] with values in [-1, 1], above their
    reconstructions. `model` has `encoder` and `decoder`; each `nrow` images start a new pair of rows."""
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
    """A picture, [3, H', W'] in [0, 1], of decoded points on straight lines between codes of two digits. Row i connects
    the i-th images of both digits.

    Args:
        model: has `encoder` and `decoder`.
        images, labels: float [N, 1, H, W] with values in [-1, 1], and long [N].
        digits: the digits at the left and at the right end.
        steps: points on a line, both ends included.
        rows: number of lines; fewer if a digit has fewer images.
    """
    device = model.decoder.device
    rows = min(rows, *(int((labels == digit).sum()) for digit in digits))
    left, right = (model.encoder(images[labels == digit][:rows].to(device)) for digit in digits)  # (rows, D)
    share = torch.linspace(0, 1, steps, device=device).view(1, steps, 1)
    codes = torch.lerp(left.unsqueeze(1), right.unsqueeze(1), share)  # (rows, steps, D)
    return sample_grid(model.decoder(codes.flatten(end_dim=1)), nrow=steps)


@torch.no_grad()
def manifold_grid(decoder: nn.Module, grid_size: int = 20) -> Tensor:
    """A picture, [3, H', W'] in [0, 1], of decoded points of a latent plane.

    The points on both axes are the percentiles (i + 0.5) / grid_size of N(0, 1), i = 0 .. grid_size - 1, so that each
    image stands for the same probability under the prior. z_1 grows from left to right, z_2 from top to bottom.

    Args:
        decoder: maps z [B, 2] to images [B, 1, H, W] in [-1, 1] and has a property `device`.
        grid_size: points on each axis.
    """
    percentiles = (torch.arange(grid_size, dtype=torch.float64) + 0.5) / grid_size
    axis = torch.as_tensor(norm.ppf(percentiles.numpy()), dtype=torch.float32)  # (grid_size)
    z_1, z_2 = torch.meshgrid(axis, axis, indexing="xy")
    z = torch.stack([z_1.flatten(), z_2.flatten()], dim=-1).to(decoder.device)  # (grid_size^2, 2)
    return sample_grid(decoder(z), nrow=grid_size)


def plot_curves(rows: list[dict[str, float]]) -> Figure:
    """Reconstruction, losses of both players, accuracy, and distance of the codes to the prior after each epoch; `rows`
    are those of `metrics.csv`."""
    panels = [  # title, value of a discriminator that cannot tell, labels of the curves
        ("reconstruction [mean squared error]", None, {"train_recon_loss": "training", "test_recon_loss": "test"}),
        ("adversarial losses [nats]", math.log(2), {
            "train_gen_loss": "generator", "train_loss_real": "discriminator, real",
            "train_loss_fake": "discriminator, fake"}),
        ("accuracy of the discriminator", 0.5, {"train_accuracy": "training"}),
        ("codes of the test images, distance to N(0, I)", None, {
            "test_mean_error": "mean", "test_covariance_error": "covariance",
            "test_ks_max": "Kolmogorov-Smirnov, largest"}),
    ]  # fmt: skip
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 12 else ""
    for axes, (title, undecided, curves) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for colour, (name, label) in zip(("#0072B2", "#D55E00", "#009E73"), curves.items(), strict=False):
            axes.plot(epochs, [row[name] for row in rows], color=colour, marker=marker, label=label)
        if undecided:
            axes.axhline(undecided, color="black", linestyle="--", linewidth=1, label="cannot tell")
        if "distance" in title:
            axes.set_yscale("log")
        elif "error" in title:
            axes.set_ylim(bottom=0)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    return figure


def plot_codes(codes: Tensor, labels: Tensor) -> Figure:
    """Codes, float [N, 2], in the latent plane, coloured by their labels, long [N] with values 0 .. 9. The axes have
    the directions of `manifold_grid`."""
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
    file = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(file, format="png", dpi=150)
    else:
        save_image(picture, file, format="png")
    atomic_write(path, file.getvalue())

"""Pictures of a VAE: grids of images, the bpd curve, and the codes in the latent plane."""

import io
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid, save_image

from run import atomic_write
from utils import mean_intensity

# Colours of the digits 0 .. 9, chosen to be told apart by colour-blind readers.
DIGIT_COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777",
)  # fmt: skip


def sample_grid(imgs: Tensor, nrow: int = 8) -> Tensor:
    """One picture, [3, H', W'] in [0, 1] on the CPU, of images, long [B, 1, H, W] with values 0 .. 15."""
    return make_grid(imgs.float().cpu() / 15, nrow=nrow, pad_value=0.5)


@torch.no_grad()
def reconstruction_grid(model, images: Tensor, labels: Tensor, rows: int = 3) -> Tensor:
    """The first `rows` images of each digit, in columns 0 .. 9, each above its reconstruction (mean intensity).

    Args:
        model: has `encoder` and `decoder`.
        images: long [N, 1, H, W] with values 0 .. 15.
        labels: long [N]; each digit must occur at least `rows` times.
        rows: number of rows, each of originals and their reconstructions.

    Returns:
        A picture [3, H', W'] in [0, 1].
    """
    chosen = torch.stack([images[labels == digit][:rows] for digit in range(10)], dim=1)  # (rows, 10, 1, H, W)
    codes, _ = model.encoder(chosen.flatten(end_dim=1).to(model.decoder.device))
    decoded = mean_intensity(model.decoder(codes)).cpu().view(chosen.shape)
    pairs = torch.stack([chosen.float().cpu() / 15, decoded], dim=1)  # (rows, 2, 10, 1, H, W)
    return make_grid(pairs.flatten(end_dim=2), nrow=10, pad_value=0.5)


@torch.no_grad()
def interpolation_grid(
    model, images: Tensor, labels: Tensor, digits: tuple[int, int], steps: int = 10, rows: int = 8
) -> Tensor:
    """Decoded points on straight lines between the codes of two digits; row i starts and ends at the i-th image of
    each.

    Args:
        model: has `encoder` and `decoder`.
        images: long [N, 1, H, W] with values 0 .. 15.
        labels: long [N].
        digits: the digits at the left and at the right end.
        steps: images in a row, both ends included.
        rows: number of rows; fewer if a digit has fewer images.

    Returns:
        A picture [3, H', W'] in [0, 1].
    """
    device = model.decoder.device
    rows = min(rows, *(int((labels == digit).sum()) for digit in digits))
    left, right = (model.encoder(images[labels == digit][:rows].to(device))[0] for digit in digits)  # (rows, D)
    share = torch.linspace(0, 1, steps, device=device).view(1, steps, 1)
    codes = torch.lerp(left.unsqueeze(1), right.unsqueeze(1), share)  # (rows, steps, D)
    return make_grid(mean_intensity(model.decoder(codes.flatten(end_dim=1))).cpu(), nrow=steps, pad_value=0.5)


def plot_bpd_curve(rows: list[dict[str, float]], test_bpd: float) -> Figure:
    """Training and validation bpd after each epoch, and the test score as a line (question 1.7).

    Args:
        rows: one dictionary per epoch with `epoch`, `train_bpd` and `val_bpd`.
        test_bpd: score of the checkpoint with the lowest validation bpd.
    """
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 12 else ""
    axes.plot(epochs, [row["train_bpd"] for row in rows], color="#0072B2", marker=marker, label="training")
    axes.plot(epochs, [row["val_bpd"] for row in rows], color="#D55E00", marker=marker, label="validation")
    axes.axhline(test_bpd, color="black", linestyle="--", linewidth=1, label=f"test: {test_bpd:.4f}")
    axes.set(xlabel="epoch", ylabel="negative ELBO [bits per dimension]")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def plot_codes(codes: Tensor, labels: Tensor) -> Figure:
    """Posterior means in the latent plane, coloured by digit. The axes have the directions of `visualize_manifold`.

    Args:
        codes: float [N, 2].
        labels: long [N] with values 0 .. 9.
    """
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    for digit, colour in enumerate(DIGIT_COLOURS):
        points = codes[labels == digit]
        axes.scatter(points[:, 0], points[:, 1], s=4, color=colour, label=str(digit), linewidths=0)
    radii = torch.tensor([1.0, 2.0, 3.0])
    angle = torch.linspace(0, 2 * torch.pi, 200)
    for radius in radii:
        axes.plot(radius * angle.cos(), radius * angle.sin(), color="black", linewidth=0.6, linestyle=":")
    axes.set(xlabel="$z_1$", ylabel="$z_2$", title="Posterior means of the test images; circles: 1, 2, 3 prior std")
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

"""Pictures of a VAE: grids of images, the curve of its training, and its latent plane."""

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

# Ten colours that stay apart for colour-blind readers as far as ten can, in the order of the digits.
DIGIT_COLOURS = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777")  # fmt: skip


def sample_grid(imgs: Tensor, nrow: int = 8) -> Tensor:
    """Images with values 0 .. 15, long [B, 1, H, W], as one picture [3, H', W'] in [0, 1] on the CPU."""
    return make_grid(imgs.float().cpu() / 15, nrow=nrow, pad_value=0.5)


def plot_bpd_curve(rows: list[dict[str, float]], test_bpd: float) -> Figure:
    """Training and validation bpd after each epoch, and the test score as a line (question 1.7).

    Args:
        rows: one dictionary an epoch with `epoch`, `train_bpd` and `val_bpd`.
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
    """Posterior means in a latent plane coloured by digit, with the axes directed as in the manifold's picture.

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

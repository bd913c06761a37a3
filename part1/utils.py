"""The mathematics of the VAE: reparameterisation, losses, bits per dimension, and the data manifold."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor, nn
from torchvision.utils import make_grid


def sample_reparameterize(mean: Tensor, std: Tensor, validate_args: bool = True) -> Tensor:
    """Draw z = mean + std * eps with eps ~ N(0, I): the sample is differentiable in mean and std (Kingma and Welling,
    2014).

    Args:
        mean: float tensor of any shape.
        std: float tensor of the same shape, standard deviations >= 0.
        validate_args: check the values of `std`, which makes the program wait for a GPU. Not needed for values that
            cannot be negative, such as those of `exp`.

    Returns:
        The sample, of the shape of `mean`.

    Raises:
        ValueError: the shapes differ, or an element of `std` is negative (the caller probably passed log std).
    """
    if mean.shape != std.shape:
        raise ValueError(f"mean has shape {tuple(mean.shape)} and std {tuple(std.shape)}; they must be equal")
    if validate_args and bool((std < 0).any()):
        raise ValueError("std has negative elements: pass the standard deviation, not its logarithm")
    return mean + std * torch.randn_like(std)


def KLD(mean: Tensor, log_std: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(N(mean, diag(std^2)) || N(0, I)) in nats (eq. 13 of the assignment):

        1/2 sum_d (exp(2 log_std_d) + mean_d^2 - 1 - 2 log_std_d)

    Args:
        mean: float tensor [..., D].
        log_std: float tensor [..., D], natural logarithms of the standard deviations.

    Returns:
        [...], the sum over the last dimension, >= 0, in float32 or wider: squares of 16-bit numbers overflow.
    """
    wide = torch.promote_types(mean.dtype, torch.float32)
    mean, log_std = mean.to(wide), log_std.to(wide)
    # expm1(x) is exp(x) - 1 without the cancellation near x = 0, where the posterior is close to the prior.
    return 0.5 * (torch.expm1(2 * log_std) - 2 * log_std + mean.square()).sum(dim=-1)


def reconstruction_loss(logits: Tensor, imgs: Tensor) -> Tensor:
    """Negative log-likelihood -log p(x|z) in nats of images with independent categorical pixels (eq. 13).

    Args:
        logits: [B, K, H, W], unnormalised log probabilities of the grey values 0 .. K-1.
        imgs: long [B, 1, H, W] with values 0 .. K-1.

    Returns:
        [B], summed over the pixels of each image, in float32 or wider.
    """
    batch_size, num_values = logits.shape[:2]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits = logits.permute(0, 2, 3, 1).reshape(-1, num_values)  # (B*H*W, K), no copy where logits are channels_last
    return F.cross_entropy(logits, imgs.flatten(), reduction="none").view(batch_size, -1).sum(dim=-1)


def elbo_to_bpd(elbo: Tensor, img_shape: Sequence[int]) -> Tensor:
    """Bits per dimension of a negative log-likelihood (bound): nll * log2(e) / prod(d_i).

    Args:
        elbo: negative log-likelihood in nats, summed over the dimensions of an image; one value per image, or a tensor
            of any other shape.
        img_shape: [batch, channels, height, width]; the batch dimension is ignored.

    Returns:
        Bits per dimension, of the shape of `elbo`.
    """
    return elbo * (math.log2(math.e) / math.prod(img_shape[1:]))


def mean_intensity(logits: Tensor) -> Tensor:
    """Expected grey value of each pixel under its categorical distribution, scaled to [0, 1].

    Args:
        logits: [B, K, H, W], unnormalised log probabilities of the grey values 0 .. K-1.

    Returns:
        [B, 1, H, W].
    """
    num_values = logits.shape[1]
    values = torch.linspace(0, 1, num_values, device=logits.device)  # (K)
    return torch.einsum("bkhw,k->bhw", logits.float().softmax(dim=1), values).unsqueeze(1)


@torch.no_grad()
def visualize_manifold(decoder: nn.Module, grid_size: int = 20) -> Tensor:
    """The data manifold of a decoder with two latent dimensions (question 1.9; Kingma and Welling, 2014, figure 4b).

    The points of the grid are the percentiles (i + 0.5) / grid_size, i = 0 .. grid_size - 1, of N(0, 1) on both axes,
    so that each point has the same share of the prior. z_1 grows from left to right, z_2 from top to bottom.

    Args:
        decoder: maps z [B, 2] to logits [B, 16, H, W] and has a property `device`.
        grid_size: points on each axis.

    Returns:
        A `make_grid` image [3, H', W'] in [0, 1] of the mean intensities.
    """
    percentiles = (torch.arange(grid_size, dtype=torch.float64) + 0.5) / grid_size
    axis = torch.as_tensor(norm.ppf(percentiles.numpy()), dtype=torch.float32)  # (grid_size)
    z_1, z_2 = torch.meshgrid(axis, axis, indexing="xy")
    z = torch.stack([z_1.flatten(), z_2.flatten()], dim=-1).to(decoder.device)  # (grid_size^2, 2)
    return make_grid(mean_intensity(decoder(z)).cpu(), nrow=grid_size)

"""Evaluation of a trained VAE: importance-weighted bounds on the likelihood, and the codes of a data set."""

import math

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cli import raise_if_stopped
from utils import reconstruction_loss


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
            raise_if_stopped()
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

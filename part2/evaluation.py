"""Scores of a model on test images: reconstruction error, and distance of the codes from the prior N(0, I)."""

import contextlib

import torch
from scipy.stats import kstest
from torch import Tensor
from torch.utils.data import DataLoader

NOISE_SEED = 2015  # other numbers than the seeds 0 and 42 of samples, which would repeat in the encoder's noise


@contextlib.contextmanager
def evaluating(model, seed: int = NOISE_SEED):
    """Context in which a model is in evaluation mode, without gradients, and draws the same random numbers each time.

    At the end the model's mode and the random state are those of before, so that a training is not disturbed.

    Args:
        model: a module that has `decoder.device`.
        seed: of the random numbers.
    """
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
    from the aggregated posterior q(z), which training matches to the prior. Call this within `evaluating` to have the
    same draws each time.

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
    """Kolmogorov-Smirnov distance sup_v |F_N(v) - Φ(v)| of each column's distribution from N(0, 1).

    Args:
        values: [N, D].

    Returns:
        float64 [D] in [0, 1]: 0 for equal distributions; NaN for a column with a NaN.
    """
    # "asymp" is the fastest way to the p-value, which is not used.
    test = kstest(values.double().cpu().numpy(), "norm", axis=0, method="asymp")
    return torch.as_tensor(test.statistic)


def distances_to_prior(codes: Tensor) -> dict[str, float]:
    """Distances of the codes' distribution from N(0, I); 0 for equal distributions.

    Args:
        codes: [N, D].

    Returns:
        `mean_error`: ||mean(z)||; `covariance_error`: Frobenius norm ||cov(z) - I||; `ks_mean`, `ks_max`: mean and
        maximum over the dimensions of the Kolmogorov-Smirnov distance to N(0, 1). All four are small only if the
        moments and the marginal distributions agree.
    """
    codes = codes.double()
    centred = codes - codes.mean(dim=0)
    covariance = centred.T @ centred / max(len(codes) - 1, 1)  # (D, D)
    ks = kolmogorov_smirnov(codes)
    identity = torch.eye(codes.shape[1], dtype=codes.dtype, device=codes.device)
    return {
        "mean_error": codes.mean(dim=0).norm().item(),
        "covariance_error": (covariance - identity).norm().item(),
        "ks_mean": ks.mean().item(),
        "ks_max": ks.max().item(),
    }

"""How well a model does on images it was not trained on, and how close its codes come to the prior N(0, I)."""

import torch
from scipy.stats import kstest
from torch import Tensor
from torch.utils.data import DataLoader


@torch.no_grad()
def encode(model, loader: DataLoader) -> tuple[Tensor, Tensor, float]:
    """Codes of all images of a loader, and how well they are reconstructed.

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
    return torch.cat(codes).cpu(), torch.cat(labels), squared_error.item() / num_values


def kolmogorov_smirnov(values: Tensor) -> Tensor:
    """Distance sup_v |F_N(v) - Φ(v)| between the distribution of some values and N(0, 1).

    Args:
        values: [N, D]; each column is compared by itself.

    Returns:
        float64 [D] in [0, 1]: 0 for equal distributions; NaN for a column with a NaN.
    """
    # The method is that of the test's p-value, which is not needed: this one takes no time.
    test = kstest(values.double().cpu().numpy(), "norm", axis=0, method="asymp")
    return torch.as_tensor(test.statistic)


def distances_to_prior(codes: Tensor) -> dict[str, float]:
    """How far the distribution of codes is from N(0, I); all are 0 for equal distributions.

    Args:
        codes: [N, D].

    Returns:
        `mean_error`: ||mean(z)||; `covariance_error`: Frobenius norm ||cov(z) - I||; `ks_mean`, `ks_max`: mean and
        maximum over the dimensions of the Kolmogorov-Smirnov distance to N(0, 1). Only distributions that have the
        right moments and the right shape along the axes make all four small.
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

"""The two further posteriors q(z|x) of Makhzani et al. (2015): `--encoder gaussian` and `--encoder universal`."""

import torch
from torch import Tensor

from models import AdversarialAE, ConvEncoder


class GaussianEncoder(ConvEncoder):
    """Gaussian posterior q(z|x) = N(mean(x), diag(std(x)^2)); every call draws new codes."""

    def __init__(self, z_dim: int):
        super().__init__(2 * z_dim)  # mean and log std of each dimension

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std, each [B, z_dim], of images [B, 1, 28, 28] with values in [-1, 1]. The log std is at most 1:
        training lowers it for most images and can raise it for a rare one, step by step, until its exp overflows."""
        mean, log_std = super().forward(x).chunk(2, dim=1)
        return mean, log_std.clamp(max=1)

    def forward(self, x: Tensor) -> Tensor:
        """One draw from the posterior of each image [B, 1, 28, 28], reparameterised so that gradients reach mean and
        log std: codes z = mean + std * eps with eps ~ N(0, I), [B, z_dim]."""
        mean, log_std = self.posterior(x)
        return mean + log_std.exp() * torch.randn_like(mean)


class UniversalEncoder(ConvEncoder):
    """Universal approximator of the posterior: the code z = f(x, η) depends on the image and on noise η ~ N(0, I), a
    second input channel. The network can turn it into any distribution; every call draws new codes."""

    def __init__(self, z_dim: int):
        super().__init__(z_dim, num_input_channels=2)

    def forward(self, x: Tensor) -> Tensor:
        """One draw from the posterior of each image [B, 1, 28, 28]: codes [B, z_dim]."""
        return super().forward(torch.cat([x, torch.randn_like(x)], dim=1))  # (B, 2, 28, 28) -> (B, z_dim)


ENCODERS = {"deterministic": ConvEncoder, "gaussian": GaussianEncoder, "universal": UniversalEncoder}


def build_aae(z_dim: int, encoder: str = "deterministic") -> AdversarialAE:
    """A new adversarial autoencoder with one of the `ENCODERS`."""
    return AdversarialAE(z_dim, ENCODERS[encoder](z_dim))

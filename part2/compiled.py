"""The adversarial autoencoder with compiled training steps (`--compile`)."""

import torch
from torch import Tensor

from models import AdversarialAE


class CompiledAE(AdversarialAE):
    """An `AdversarialAE`, with the same weights and checkpoints, whose forward pass and losses are compiled. Evaluation
    and samples use encoder and decoder as they are.

    Args:
        z_dim, encoder: as of `AdversarialAE`.
        options: arguments of `torch.compile`.
    """

    def __init__(self, z_dim: int = 8, encoder: str = "deterministic", **options):
        super().__init__(z_dim, encoder)
        self._forward, self._autoencoder, self._discriminator = (
            torch.compile(method, **options)
            for method in (super().forward, super().get_loss_autoencoder, super().get_loss_discriminator)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # A training step begins here. A CUDA graph may now overwrite what the last step's graphs have returned, but not
        # the codes of this step before the discriminator has seen them.
        torch.compiler.cudagraph_mark_step_begin()
        return self._forward(x)

    def get_loss_autoencoder(self, *args, **kwargs) -> tuple[Tensor, dict[str, Tensor]]:
        return _kept(*self._autoencoder(*args, **kwargs))

    def get_loss_discriminator(self, z_fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return _kept(*self._discriminator(z_fake))


def _kept(loss: Tensor, values: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and copies of the values, which are read many steps later."""
    return loss, {name: value.clone() for name, value in values.items()}

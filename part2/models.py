"""The networks of the adversarial autoencoder (Makhzani et al., 2015) and the losses of its two players."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_FILTERS = 32  # channels c of the layers next to the image; the deeper ones have 2c
MEAN_PIXEL = 2 * 0.1307 - 1  # of MNIST, in [-1, 1]


class ConvEncoder(nn.Module):
    """Deterministic encoder: maps an image to its latent code.

    Args:
        z_dim: dimensions of the latent space.
    """

    def __init__(self, z_dim: int):
        super().__init__()
        c = NUM_FILTERS
        self.net = nn.Sequential(
            nn.Conv2d(1, c, kernel_size=3, padding=1, stride=2),  # 28x28 -> 14x14
            nn.GELU(),
            nn.Conv2d(c, c, kernel_size=3, padding=1),
            nn.GELU(),
            nn.Conv2d(c, 2 * c, kernel_size=3, padding=1, stride=2),  # 14x14 -> 7x7
            nn.GELU(),
            nn.Conv2d(2 * c, 2 * c, kernel_size=3, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * c, 2 * c, kernel_size=3, padding=1, stride=2),  # 7x7 -> 4x4
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(2 * c * 4 * 4, z_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: images, float [B, 1, 28, 28] with values in [-1, 1].

        Returns:
            codes [B, z_dim], any real numbers.
        """
        return self.net(x.to(self.net[0].weight.dtype))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


class ConvDecoder(nn.Module):
    """Maps a latent code to an image; the mirror of the encoder.

    Its images begin at MNIST's mean grey value, by the bias of the last layer. Without that, the first steps push all
    pixels towards black; with some seeds this goes on until nearly all of them are close to -1, where the tanh passes
    hardly any gradient on (`report/initialisation.py` counts such seeds).

    Args:
        z_dim: dimensions of the latent space.
    """

    def __init__(self, z_dim: int):
        super().__init__()
        c = NUM_FILTERS
        self.linear = nn.Sequential(nn.Linear(z_dim, 2 * c * 4 * 4), nn.GELU())
        self.net = nn.Sequential(
            nn.ConvTranspose2d(2 * c, 2 * c, kernel_size=3, padding=1, stride=2),  # 4x4 -> 7x7
            nn.GELU(),
            nn.Conv2d(2 * c, 2 * c, kernel_size=3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(2 * c, c, kernel_size=3, padding=1, stride=2, output_padding=1),  # 7x7 -> 14x14
            nn.GELU(),
            nn.Conv2d(c, c, kernel_size=3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(c, 1, kernel_size=3, padding=1, stride=2, output_padding=1),  # 14x14 -> 28x28
            nn.Tanh(),
        )
        nn.init.constant_(self.net[-2].bias, math.atanh(MEAN_PIXEL))

    def forward(self, z: Tensor) -> Tensor:
        """
        Args:
            z: codes, float [B, z_dim].

        Returns:
            images [B, 1, 28, 28] with values in [-1, 1].
        """
        x = self.linear(z.to(self.linear[0].weight.dtype)).unflatten(1, (-1, 4, 4))  # (B, 2c, 4, 4)
        return self.net(x)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


class Discriminator(nn.Module):
    """Tells codes drawn from the prior ("real") from those of the encoder ("fake").

    Args:
        z_dim: dimensions of the latent space.
    """

    def __init__(self, z_dim: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(z_dim, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """
        Args:
            z: codes, float [B, z_dim].

        Returns:
            logits [B, 1] without a sigmoid: above 0 for real, below 0 for fake.
        """
        return self.net(z.to(self.net[0].weight.dtype))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


class AdversarialAE(nn.Module):
    """Autoencoder whose codes are made to follow the prior N(0, I) by playing against a discriminator.

    Args:
        z_dim: dimensions of the latent space.
    """

    def __init__(self, z_dim: int = 8):
        super().__init__()
        self.z_dim = z_dim
        self.encoder = ConvEncoder(z_dim)
        self.decoder = ConvDecoder(z_dim)
        self.discriminator = Discriminator(z_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: images, float [B, 1, 28, 28] with values in [-1, 1].

        Returns:
            reconstructions of the same shape and range, and codes [B, z_dim].
        """
        z = self.encoder(x)
        return self.decoder(z), z

    def get_loss_autoencoder(
        self, x: Tensor, recon_x: Tensor, z_fake: Tensor, lambda_: float = 1
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of encoder and decoder (eq. 15 of the assignment, with the generator's loss in its form that does not
        saturate, -log D(E(x)), as in Goodfellow et al., 2014):

            λ · MSE(x, R(E(x))) + (1 - λ) · BCE(D(E(x)), real)

        Gradients reach the encoder and the decoder, never the discriminator. A term of weight zero is computed for
        the log alone: 0 times the gradient of something that is not finite would still spoil the weights.

        Args:
            x: images, float [B, 1, 28, 28] with values in [-1, 1].
            recon_x: their reconstructions.
            z_fake: their codes [B, z_dim].
            lambda_: λ in [0, 1].

        Returns:
            The loss, a scalar, and a dictionary with its parts, detached: `gen_loss` (mean over the batch, log 2 where
            the discriminator cannot tell), `recon_loss` (mean over batch and pixels), `ae_loss`.

        Raises:
            ValueError: λ is outside [0, 1].
        """
        if not 0 <= lambda_ <= 1:
            raise ValueError(f"lambda_ must lie in [0, 1], not {lambda_}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and lambda_ > 0):
            recon_loss = F.mse_loss(_wide(recon_x), _wide(x))
        with torch.set_grad_enabled(torch.is_grad_enabled() and lambda_ < 1):
            logits = self._judge_with_frozen_weights(z_fake)  # (B, 1)
            gen_loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        if lambda_ == 1:
            ae_loss = recon_loss
        elif lambda_ == 0:
            ae_loss = gen_loss
        else:
            ae_loss = lambda_ * recon_loss + (1 - lambda_) * gen_loss
        parts = {"gen_loss": gen_loss, "recon_loss": recon_loss, "ae_loss": ae_loss}
        return ae_loss, {name: value.detach() for name, value in parts.items()}

    def get_loss_discriminator(self, z_fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the discriminator, which is to call as many draws from the prior N(0, I) real as codes fake:

            1/2 (BCE(D(z), real) + BCE(D(z_fake), fake)),  z ~ N(0, I)

        Args:
            z_fake: codes of the encoder [B, z_dim]; no gradient reaches them.

        Returns:
            The loss, a scalar, log 2 where the discriminator cannot tell, and a dictionary, detached: `disc_loss`, its
            terms `loss_real` and `loss_fake`, and `accuracy`, the share in [0, 1] of the 2B codes that were judged
            right.
        """
        z_fake = z_fake.detach()
        real = _wide(self.discriminator(torch.randn_like(z_fake)))  # (B, 1)
        fake = _wide(self.discriminator(z_fake))  # (B, 1)
        loss_real = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        loss_fake = F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        disc_loss = 0.5 * (loss_real + loss_fake)
        accuracy = 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())
        parts = {"disc_loss": disc_loss, "loss_real": loss_real, "loss_fake": loss_fake, "accuracy": accuracy}
        return disc_loss, {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def sample(self, batch_size: int) -> Tensor:
        """Decode draws from the prior.

        Returns:
            images [batch_size, 1, 28, 28] with values in [-1, 1].
        """
        weight = self.decoder.linear[0].weight
        return self.decoder(torch.randn(batch_size, self.z_dim, device=weight.device, dtype=weight.dtype))

    def _judge_with_frozen_weights(self, z: Tensor) -> Tensor:
        """Logits [B, 1] whose gradient reaches the codes and not the discriminator's parameters."""
        weights = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        return _wide(torch.func.functional_call(self.discriminator, weights, (z,)))


def _wide(x: Tensor) -> Tensor:
    """At least float32: a mean over the pixels of a batch has too many terms for fewer bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

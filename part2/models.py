"""The networks of the adversarial autoencoder (Makhzani et al., 2015) and the losses of its two players."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_FILTERS = 32  # channels c of the layers next to the image; the deeper ones have 2c
MEAN_PIXEL = 2 * 0.1307 - 1  # of MNIST, in [-1, 1]


class Network(nn.Module):
    """A module that knows the device of its weights."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class ConvEncoder(Network):
    """Deterministic encoder: maps an image to its code.

    Args:
        z_dim: dimensions of the latent space.
        num_input_channels: channels of the image, and of the noise that enters with it.
    """

    def __init__(self, z_dim: int, num_input_channels: int = 1):
        super().__init__()
        c = NUM_FILTERS
        self.net = nn.Sequential(
            nn.Conv2d(num_input_channels, c, kernel_size=3, padding=1, stride=2),  # 28x28 -> 14x14
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
        """Codes [B, z_dim] of images, float [B, 1, 28, 28] with values in [-1, 1]."""
        return self.net(x.to(self.net[0].weight.dtype))


class ConvDecoder(Network):
    """Maps a code of `z_dim` numbers to an image; its layers mirror those of the encoder."""

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
        # Start with MNIST's mean grey value. With PyTorch's own bias, the first steps push all pixels towards black;
        # with some seeds, they go on until the gradient of the tanh vanishes (`report/initialisation.py` counts them).
        nn.init.constant_(self.net[-2].bias, math.atanh(MEAN_PIXEL))

    def forward(self, z: Tensor) -> Tensor:
        """Images [B, 1, 28, 28] with values in [-1, 1] of codes, float [B, z_dim]."""
        x = self.linear(z.to(self.linear[0].weight.dtype)).unflatten(1, (-1, 4, 4))  # (B, 2c, 4, 4)
        return self.net(x)


class Discriminator(Network):
    """Tells draws from the prior ("real") from codes of the encoder ("fake"), both of `z_dim` numbers."""

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
        """Logits [B, 1], without a sigmoid, of codes, float [B, z_dim]: above 0 for real, below 0 for fake."""
        return self.net(z.to(self.net[0].weight.dtype))


class AdversarialAE(Network):
    """Autoencoder whose codes are trained, against a discriminator, to follow the prior N(0, I).

    Args:
        z_dim: dimensions of the latent space.
        encoder: maps images to codes; by default a new `ConvEncoder`. `encoders.py` has others.
    """

    def __init__(self, z_dim: int = 8, encoder: nn.Module | None = None):
        super().__init__()
        self.z_dim = z_dim
        self.encoder = ConvEncoder(z_dim) if encoder is None else encoder
        self.decoder = ConvDecoder(z_dim)
        self.discriminator = Discriminator(z_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions of images, float [B, 1, 28, 28] with values in [-1, 1], in the same shape and range, and the
        codes [B, z_dim] that they were decoded from."""
        z = self.encoder(x)
        return self.decoder(z), z

    def get_loss_autoencoder(
        self, x: Tensor, recon_x: Tensor, z_fake: Tensor, lambda_: float = 1
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of encoder and decoder: equation 15 of the assignment, where the generator loss has the form
        -log D(E(x)), which does not saturate (Goodfellow et al., 2014):

            λ · MSE(x, R(E(x))) + (1 - λ) · BCE(D(E(x)), real)

        Gradients reach all three networks; the discriminator's optimizer has to drop them before its own step. With
        λ = 1 the generator loss is only logged: 0 times an infinite gradient would spoil the weights.

        Args:
            x: images, float [B, 1, 28, 28] with values in [-1, 1].
            recon_x: their reconstructions.
            z_fake: their codes [B, z_dim].
            lambda_: λ in [0, 1].

        Returns:
            The loss, a scalar, and a dictionary of detached scalars: `gen_loss` (mean over the batch; log 2 if the
            discriminator cannot tell codes from draws), `recon_loss` (mean over batch and pixels), `ae_loss`.

        Raises:
            ValueError: λ is outside [0, 1].
        """
        if not 0 <= lambda_ <= 1:
            raise ValueError(f"lambda_ must lie in [0, 1], not {lambda_}")
        recon_loss = F.mse_loss(_at_least_float32(recon_x), _at_least_float32(x))
        logits = _at_least_float32(self.discriminator(z_fake))  # (B, 1)
        gen_loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        ae_loss = recon_loss if lambda_ == 1 else lambda_ * recon_loss + (1 - lambda_) * gen_loss
        parts = {"gen_loss": gen_loss, "recon_loss": recon_loss, "ae_loss": ae_loss}
        return ae_loss, {name: value.detach() for name, value in parts.items()}

    def get_loss_discriminator(self, z_fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the discriminator, which should call draws from the prior N(0, I) real and codes fake. There are as
        many draws as codes:

            1/2 (BCE(D(z), real) + BCE(D(z_fake), fake)),  z ~ N(0, I)

        Args:
            z_fake: codes of the encoder [B, z_dim]; no gradient reaches them.

        Returns:
            The loss, a scalar, and a dictionary of detached scalars: `disc_loss` (log 2 if the discriminator cannot
            tell codes from draws), its terms `loss_real` and `loss_fake`, and `accuracy`, the share in [0, 1] of the
            2B codes and draws that were told right.
        """
        z_fake = z_fake.detach()
        z_real = torch.randn_like(z_fake)
        real = _at_least_float32(self.discriminator(z_real))  # (B, 1)
        fake = _at_least_float32(self.discriminator(z_fake))  # (B, 1)
        loss_real = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        loss_fake = F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        disc_loss = 0.5 * (loss_real + loss_fake)
        accuracy = 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())
        parts = {"disc_loss": disc_loss, "loss_real": loss_real, "loss_fake": loss_fake, "accuracy": accuracy}
        return disc_loss, {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def sample(self, batch_size: int) -> Tensor:
        """Decoded draws from the prior: images [batch_size, 1, 28, 28] with values in [-1, 1]."""
        weight = self.decoder.linear[0].weight
        z = torch.randn(batch_size, self.z_dim, device=weight.device, dtype=weight.dtype)
        return self.decoder(z)


def _at_least_float32(x: Tensor) -> Tensor:
    """x in float32 or wider: 16 bits are too few for a mean over all pixels of a batch."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

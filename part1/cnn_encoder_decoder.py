"""The two networks of the VAE: a convolutional encoder, and a decoder that mirrors it."""

import torch
from torch import Tensor, nn

LARGEST_VALUE = 15  # of a pixel with 4 bits


class CNNEncoder(nn.Module):
    """q(z|x): maps an image to the mean and log standard deviation of a diagonal Gaussian over z.

    Args:
        num_input_channels: channels of the image.
        num_filters: channels c of the first layers; the deeper ones have 2c.
        z_dim: dimensions of the latent space.
    """

    def __init__(self, num_input_channels: int = 1, num_filters: int = 32, z_dim: int = 20):
        super().__init__()
        c = num_filters
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
            nn.Linear(2 * c * 4 * 4, 2 * z_dim),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: images [B, C, 28, 28] of type long with values 0 .. 15; they are scaled to [-1, 1] here.

        Returns:
            mean and log_std, each [B, z_dim], in float32 or wider, also where the layers compute in 16 bits.
        """
        x = x.to(self.net[0].weight.dtype) / LARGEST_VALUE * 2 - 1
        x = self.net(x)  # (B, 2*z_dim)
        mean, log_std = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, dim=-1)
        return mean, log_std


class CNNDecoder(nn.Module):
    """p(x|z): maps a latent vector to the logits of a categorical distribution over each pixel's grey value.

    Args:
        num_input_channels: channels of the output, one per grey value (the name is the course's).
        num_filters: channels c of the last layers; the earlier ones have 2c.
        z_dim: dimensions of the latent space.
    """

    def __init__(self, num_input_channels: int = 16, num_filters: int = 32, z_dim: int = 20):
        super().__init__()
        c = num_filters
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
            nn.ConvTranspose2d(
                c, num_input_channels, kernel_size=3, padding=1, stride=2, output_padding=1
            ),  # 14x14 -> 28x28
        )

    def forward(self, z: Tensor) -> Tensor:
        """
        Args:
            z: latent vectors, float [B, z_dim].

        Returns:
            logits [B, num_input_channels, 28, 28], before the softmax.
        """
        x = self.linear(z.to(self.linear[0].weight.dtype)).unflatten(1, (-1, 4, 4))  # (B, 2c, 4, 4)
        return self.net(x)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

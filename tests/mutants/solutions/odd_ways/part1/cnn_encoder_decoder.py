import torch
import torch.nn as nn
import numpy as np


class CNNEncoder(nn.Module):
    def __init__(self, num_input_channels: int = 1, num_filters: int = 32, z_dim: int = 20):
        """Encoder with a CNN network.

        Inputs:
            num_input_channels - number of channels of an image
            num_filters - channels of the first layers
            z_dim - size of the latent vector
        """
        super().__init__()
        c_hid = num_filters
        self.net = nn.Sequential(
            nn.Conv2d(num_input_channels, c_hid, kernel_size=3, padding=1, stride=2),
            nn.GELU(),
            nn.Conv2d(c_hid, c_hid, kernel_size=3, padding=1),
            nn.GELU(),
            nn.Conv2d(c_hid, 2 * c_hid, kernel_size=3, padding=1, stride=2),
            nn.GELU(),
            nn.Conv2d(2 * c_hid, 2 * c_hid, kernel_size=3, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * c_hid, 2 * c_hid, kernel_size=3, padding=1, stride=2),
            nn.GELU(),
            nn.Flatten(),
        )
        self.mean_layer = nn.Linear(2 * 16 * c_hid, z_dim)
        self.log_std_layer = nn.Linear(2 * 16 * c_hid, z_dim)

    def forward(self, x):
        """
        Inputs:
            x - images with values 0 to 15, as integers
        Outputs:
            mean, log_std - of the latent distribution, [B, z_dim]
        """
        x = x.float() / 15 * 2.0 - 1.0
        x = self.net(x)
        mean = self.mean_layer(x)
        log_std = self.log_std_layer(x)
        return mean, log_std


class CNNDecoder(nn.Module):
    def __init__(self, num_input_channels: int = 16, num_filters: int = 32, z_dim: int = 20):
        """Decoder with a CNN network.

        Inputs:
            num_input_channels - number of grey values of a pixel
            num_filters - channels of the last layers
            z_dim - size of the latent vector
        """
        super().__init__()
        c_hid = num_filters
        self.linear = nn.Sequential(nn.Linear(z_dim, 2 * 16 * c_hid), nn.GELU())
        self.net = nn.Sequential(
            nn.ConvTranspose2d(2 * c_hid, 2 * c_hid, kernel_size=3, output_padding=0, padding=1, stride=2),
            nn.GELU(),
            nn.Conv2d(2 * c_hid, 2 * c_hid, kernel_size=3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(2 * c_hid, c_hid, kernel_size=3, output_padding=1, padding=1, stride=2),
            nn.GELU(),
            nn.Conv2d(c_hid, c_hid, kernel_size=3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(c_hid, num_input_channels, kernel_size=3, output_padding=1, padding=1, stride=2),
        )

    def forward(self, z):
        """
        Inputs:
            z - latent vectors, [B, z_dim]
        Outputs:
            x - logits of the grey values, [B, num_input_channels, 28, 28]
        """
        x = self.linear(z)
        x = x.reshape(x.shape[0], -1, 4, 4)
        x = self.net(x)
        return x

    @property
    def device(self):
        """The device that the parameters are on."""
        return next(self.parameters()).device

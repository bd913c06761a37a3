import torch
import torch.nn as nn
import torch.nn.functional as F
import numpy as np
import math
class CNNEncoder(nn.Module):
    def __init__(self, num_input_channels: int = 1, num_filters: int = 32, z_dim: int = 20):
        super().__init__()
        c = num_filters
        self.net = nn.Sequential(nn.Conv2d(num_input_channels, c, 3, 2, 1), nn.ReLU(), nn.BatchNorm2d(c), nn.Conv2d(c, 2*c, 3, 2, 1), nn.BatchNorm2d(2*c), nn.ReLU(), nn.Conv2d(2*c, 2*c, 3, 2, 1), nn.ReLU(), nn.Flatten())
        self.mu = nn.Linear(2*16*c, z_dim)
        self.log_std = nn.Linear(2*16*c, z_dim)
    def forward(self, x):
        x = x.float() / 15 * 2.0 - 1.0
        h = self.net(x)
        return self.mu(h), self.log_std(h)

class CNNDecoder(nn.Module):
    def __init__(self, num_input_channels: int = 16, num_filters: int = 32, z_dim: int = 20):
        super().__init__()
        c = num_filters
        self.linear = nn.Sequential(nn.Linear(z_dim, 2*16*c), nn.GELU())
        self.net = nn.Sequential(nn.ConvTranspose2d(2*c, 2*c, 3, output_padding=0, padding=1, stride=2), nn.GELU(), nn.ConvTranspose2d(2*c, c, 3, output_padding=1, padding=1, stride=2), nn.BatchNorm2d(c), nn.ReLU(), nn.ConvTranspose2d(c, num_input_channels, 3, output_padding=1, padding=1, stride=2))
    def forward(self, z):
        x = self.linear(z)
        x = x.reshape(z.shape[0], -1, 4, 4)
        x = self.net(x)
        return x

    @property
    def device(self):
        return next(self.parameters()).device

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Shape:
    channels: int = 1
    filters: int = 32
    latents: int = 20


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv(torch.nn.functional.gelu(self.norm(x)))


def down(inside, outside):
    return nn.Sequential(nn.Conv2d(inside, outside, 3, 2, 1), Residual(outside))


def up(inside, outside):
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inside, outside, 3, padding=1), Residual(outside))

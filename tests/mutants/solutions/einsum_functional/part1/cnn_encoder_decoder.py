"""Weights in plain parameters, layers as functions."""

import torch
import torch.nn.functional as F
from torch import nn


def weight(*shape):
    fan_in = torch.tensor(shape[1:]).prod()
    return nn.Parameter(torch.randn(*shape) / fan_in.sqrt())


class CNNEncoder(nn.Module):
    def __init__(self, num_input_channels=1, num_filters=32, z_dim=20):
        super().__init__()
        self.first = weight(num_filters, num_input_channels, 4, 4)
        self.second = weight(num_filters, num_filters, 4, 4)
        self.head = weight(2, z_dim, num_filters, 7, 7)

    def forward(self, x):
        x = 2 * (x / 15) - 1
        x = F.silu(F.conv2d(x, self.first, stride=2, padding=1))  # 28 -> 14
        x = F.silu(F.conv2d(x, self.second, stride=2, padding=1))  # 14 -> 7
        return torch.einsum("bchw,pzchw->pbz", x, self.head).unbind()


class CNNDecoder(nn.Module):
    def __init__(self, num_input_channels=16, num_filters=32, z_dim=20):
        super().__init__()
        self.tail = weight(num_filters, 7, 7, z_dim)
        self.second = weight(num_filters, num_filters, 4, 4)
        self.first = weight(num_filters, num_input_channels, 4, 4)

    def forward(self, z):
        x = F.silu(torch.einsum("bz,chwz->bchw", z, self.tail))
        x = F.silu(F.conv_transpose2d(x, self.second, stride=2, padding=1))  # 7 -> 14
        return F.conv_transpose2d(x, self.first, stride=2, padding=1)  # 14 -> 28

    @property
    def device(self):
        return self.tail.device

import torch
import torch.nn as nn


class CNNEncoder(nn.Module):
    def __init__(self, num_input_channels: int = 1, num_filters: int = 32, z_dim: int = 20):
        super().__init__()
        self.z_dim = z_dim
        self.conv1 = nn.Conv2d(num_input_channels, num_filters, 3, 2, 1)
        self.bn = nn.BatchNorm2d(num_filters)
        self.conv2 = nn.Conv2d(num_filters, 64, 3, 2, 1)
        self.conv3 = nn.Conv2d(64, 64, 3, 2, 1)
        self.linear = nn.Linear(64 * 4 * 4, 2 * z_dim)
        self.relu = nn.ReLU()

    def forward(self, x):
        x = (x.float() - 7.5) / 7.5
        x = self.relu(self.bn(self.conv1(x)))
        x = self.relu(self.conv2(x))
        x = self.relu(self.conv3(x))
        x = self.linear(x.view(x.size(0), -1)).view(-1, 2, self.z_dim)
        mean, log_var = x[:, 0], x[:, 1]
        return mean, log_var / 2


class CNNDecoder(nn.Module):
    def __init__(self, num_input_channels: int = 16, num_filters: int = 32, z_dim: int = 20):
        super().__init__()
        self.linear = nn.Sequential(nn.Linear(z_dim, 1024), nn.ReLU())
        self.net = nn.Sequential(
            nn.ConvTranspose2d(64, 64, 3, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 3, 2, 1, 1),
        )

    def forward(self, z):
        return self.net(self.linear(z).view(-1, 64, 4, 4))

    @property
    def device(self):
        return self.linear[0].weight.device

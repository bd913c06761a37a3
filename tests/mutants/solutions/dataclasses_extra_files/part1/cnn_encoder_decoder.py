from torch import nn

from networks import Shape, down, up


class CNNEncoder(nn.Module):
    def __init__(self, num_input_channels=1, num_filters=32, z_dim=20):
        super().__init__()
        self.shape = Shape(num_input_channels, num_filters, z_dim)
        self.body = nn.Sequential(down(self.shape.channels, num_filters), down(num_filters, 2 * num_filters))
        self.mean = nn.Linear(2 * num_filters * 49, z_dim)
        self.log_std = nn.Linear(2 * num_filters * 49, z_dim)

    def forward(self, x):
        features = self.body(x.float() / 7.5 - 1).flatten(1)
        return self.mean(features), self.log_std(features), features


class CNNDecoder(nn.Module):
    def __init__(self, num_input_channels=16, num_filters=32, z_dim=20):
        super().__init__()
        self.start = nn.Linear(z_dim, num_filters * 49)
        self.body = nn.Sequential(up(num_filters, num_filters), up(num_filters, num_filters))
        self.last = nn.Conv2d(num_filters, num_input_channels, 1)

    def forward(self, z):
        return self.last(self.body(self.start(z).unflatten(1, (-1, 7, 7)))).log_softmax(dim=1)

    @property
    def device(self):
        return self.start.weight.device

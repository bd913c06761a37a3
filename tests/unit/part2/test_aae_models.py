"""The three networks of the adversarial autoencoder: shapes, ranges, layers, and samples from the prior."""

import pytest
import torch
from scipy import stats
from torch import nn


class Remembering(nn.Module):
    """Stands for a decoder or discriminator; keeps what it is given and returns zeros of a shape."""

    def __init__(self, *shape: int, z_dim: int = 3):
        super().__init__()
        self.shape, self.seen = shape, []
        self.linear = nn.ModuleList([nn.Linear(z_dim, 1)])  # a place for weights, to tell device and dtype

    def forward(self, z):
        self.seen.append(z)
        return torch.zeros(len(z), *self.shape)

    @property
    def device(self):
        return self.linear[0].weight.device


@pytest.mark.parametrize(("batch_size", "z_dim"), [(1, 2), (3, 7), (11, 20)])
def test_shapes(part2, batch_size, z_dim):
    images = torch.rand(batch_size, 1, 28, 28) * 2 - 1
    z = part2.models.ConvEncoder(z_dim=z_dim)(images)
    assert z.shape == (batch_size, z_dim) and z.dtype == torch.float32
    assert part2.models.ConvDecoder(z_dim=z_dim)(z).shape == images.shape
    assert part2.models.Discriminator(z_dim=z_dim)(z).shape == (batch_size, 1)


def test_model_returns_reconstructions_and_codes(part2):
    model = part2.models.AdversarialAE(z_dim=5)
    images = torch.rand(3, 1, 28, 28) * 2 - 1
    recon, z = model(images)
    assert recon.shape == (3, 1, 28, 28) and z.shape == (3, 5)
    torch.testing.assert_close(z, model.encoder(images))
    torch.testing.assert_close(recon, model.decoder(z))


def test_encoder_is_deterministic(part2):
    encoder = part2.models.ConvEncoder(z_dim=13)
    images = torch.rand(17, 1, 28, 28) * 2 - 1
    z = encoder(images)
    assert torch.equal(z, encoder(images))
    assert z.min() < 0 < z.max()


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_range_of_images(part2, scale):
    images = part2.models.ConvDecoder(z_dim=5)(scale * torch.randn(64, 5))
    assert images.isfinite().all()
    assert images.min() >= -1 and images.max() <= 1
    if scale > 1:
        assert images.min() < 0 < images.max(), "both halves of the range are in reach"


def test_discriminator_layers(part2):
    discriminator = part2.models.Discriminator(z_dim=7)
    linear = [module for module in discriminator.modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(7, 512), (512, 512), (512, 1)]
    assert not any(isinstance(module, nn.Sigmoid) for module in discriminator.modules())


def test_discriminator_by_hand(part2):
    """All weights are zero but for one path: unit 3 of each hidden layer passes z_1 on, times 2, -1 and 5."""
    discriminator = part2.models.Discriminator(z_dim=3)
    first, second, third = (module for module in discriminator.modules() if isinstance(module, nn.Linear))
    for layer in (first, second, third):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        first.weight[3, 1], second.weight[3, 3], third.weight[0, 3], third.bias[0] = 2.0, -1.0, 5.0, 0.25
    logits = discriminator(torch.tensor([[9.0, 1.0, 9.0], [9.0, -1.0, 9.0]]))
    # z = 1: 2 -> 2, -2 -> -0.4, -2 + 0.25.  z = -1: -2 -> -0.4, 0.4 -> 0.4, 2 + 0.25.
    assert logits.flatten().tolist() == pytest.approx([-1.75, 2.25])


def test_devices(part2):
    model = part2.models.AdversarialAE(z_dim=3)
    for module in (model, model.encoder, model.decoder, model.discriminator):
        assert module.device == torch.device("cpu")


def test_samples_are_draws_from_the_prior(part2):
    model = part2.models.AdversarialAE(z_dim=3)
    model.decoder = Remembering(1, 28, 28)
    assert model.sample(1500).shape == (1500, 1, 28, 28)
    z = torch.cat(model.decoder.seen)
    assert z.shape == (1500, 3)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    model.sample(2)
    assert not torch.equal(model.decoder.seen[-1], z[:2])


def test_discriminator_sees_prior_and_codes(part2):
    """In either order; the prior's draws are standard normal in each dimension and as many as the codes."""
    model = part2.models.AdversarialAE(z_dim=3)
    model.discriminator = Remembering(1)
    z_fake = torch.full((1500, 3), 7.0)
    model.get_loss_discriminator(z_fake)
    seen = torch.cat(model.discriminator.seen)
    assert seen.shape == (3000, 3)
    fake = (seen == 7.0).all(dim=1)
    assert fake.sum() == 1500
    for dimension in range(3):
        assert stats.kstest(seen[~fake][:, dimension].numpy(), "norm").pvalue > 1e-3


def test_recommended_layers(part2):
    """Parameters counted by hand: 3x3 kernels and biases of the convolutions, and the two linear layers."""
    c, z_dim = 32, 8
    conv = lambda n_in, n_out: 9 * n_in * n_out + n_out  # noqa: E731
    encoder = conv(1, c) + conv(c, c) + conv(c, 2 * c) + 2 * conv(2 * c, 2 * c) + (2 * c * 16 + 1) * z_dim
    decoder = (z_dim + 1) * 2 * c * 16 + 2 * conv(2 * c, 2 * c) + conv(2 * c, c) + conv(c, c) + conv(c, 1)
    model = part2.models.AdversarialAE(z_dim)
    for network, count in ((model.encoder, encoder), (model.decoder, decoder)):
        assert sum(parameter.numel() for parameter in network.parameters()) == count
        assert sum(isinstance(module, nn.GELU) for module in network.modules()) == 5


def test_new_decoder_draws_mean_grey(part2):
    """MNIST's mean is 0.1307 in [0, 1], -0.7386 in [-1, 1]."""
    images = part2.models.ConvDecoder(z_dim=5)(torch.randn(64, 5))
    assert images.mean().item() == pytest.approx(2 * 0.1307 - 1, abs=0.02)

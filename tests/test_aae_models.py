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


def test_the_whole_model_returns_reconstructions_and_codes(part2):
    model = part2.models.AdversarialAE(z_dim=5)
    images = torch.rand(3, 1, 28, 28) * 2 - 1
    recon, z = model(images)
    assert recon.shape == (3, 1, 28, 28) and z.shape == (3, 5)
    torch.testing.assert_close(z, model.encoder(images))
    torch.testing.assert_close(recon, model.decoder(z))


def test_eight_latent_dimensions_by_default(part2):
    assert part2.models.AdversarialAE()(torch.zeros(2, 1, 28, 28))[1].shape == (2, 8)


def test_the_encoder_is_deterministic_and_its_codes_take_either_sign(part2):
    encoder = part2.models.ConvEncoder(z_dim=13)
    images = torch.rand(17, 1, 28, 28) * 2 - 1
    z = encoder(images)
    assert torch.equal(z, encoder(images))
    assert z.min() < 0 < z.max()


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_images_stay_between_minus_one_and_one(part2, scale):
    images = part2.models.ConvDecoder(z_dim=5)(scale * torch.randn(64, 5))
    assert images.isfinite().all()
    assert images.min() >= -1 and images.max() <= 1
    if scale > 1:
        assert images.min() < 0 < images.max(), "both halves of the range are in reach"


def test_latent_dimensions_matter(part2):
    decoder = part2.models.ConvDecoder(z_dim=5)
    z = torch.zeros(6, 5)
    z[1:] = torch.eye(5)
    images = decoder(z)
    assert all(not torch.allclose(images[0], images[i]) for i in range(1, 6))


def test_the_discriminator_has_three_linear_layers_and_no_sigmoid(part2):
    discriminator = part2.models.Discriminator(z_dim=7)
    linear = [module for module in discriminator.modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(7, 512), (512, 512), (512, 1)]
    assert not any(isinstance(module, nn.Sigmoid) for module in discriminator.modules())


def test_the_discriminator_by_hand(part2):
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


def test_networks_know_their_device(part2):
    model = part2.models.AdversarialAE(z_dim=3)
    assert model.encoder.device == model.decoder.device == model.discriminator.device == torch.device("cpu")


@pytest.mark.parametrize("batch_size", [1, 5])
def test_samples(part2, batch_size):
    samples = part2.models.AdversarialAE(z_dim=3).sample(batch_size)
    assert samples.shape == (batch_size, 1, 28, 28)
    assert samples.min() >= -1 and samples.max() <= 1
    assert not samples.requires_grad


def test_samples_are_decoded_draws_from_the_prior(part2):
    model = part2.models.AdversarialAE(z_dim=3)
    model.decoder = Remembering(1, 28, 28)
    assert model.sample(1500).shape == (1500, 1, 28, 28)
    z = torch.cat(model.decoder.seen)
    assert z.shape == (1500, 3)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    model.sample(2)
    assert not torch.equal(model.decoder.seen[-1], z[:2])


def test_the_discriminator_sees_draws_from_the_prior_and_the_codes(part2):
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


def test_the_recommended_layers(part2):
    """Parameters counted by hand: 3x3 kernels and biases of the convolutions, and the two linear layers."""
    c, z_dim = 32, 8
    conv = lambda n_in, n_out: 9 * n_in * n_out + n_out  # noqa: E731
    encoder = conv(1, c) + conv(c, c) + conv(c, 2 * c) + 2 * conv(2 * c, 2 * c) + (2 * c * 16 + 1) * z_dim
    decoder = (z_dim + 1) * 2 * c * 16 + 2 * conv(2 * c, 2 * c) + conv(2 * c, c) + conv(c, c) + conv(c, 1)
    model = part2.models.AdversarialAE(z_dim)
    for network, count in ((model.encoder, encoder), (model.decoder, decoder)):
        assert sum(parameter.numel() for parameter in network.parameters()) == count
        assert sum(isinstance(module, nn.GELU) for module in network.modules()) == 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_networks_take_inputs_of_other_number_formats(part2, dtype):
    model = part2.models.AdversarialAE(z_dim=3).to(dtype)
    recon, z = model(torch.zeros(2, 1, 28, 28))
    assert recon.dtype == z.dtype == model.sample(2).dtype == dtype
    assert model.discriminator(torch.zeros(2, 3)).dtype == dtype

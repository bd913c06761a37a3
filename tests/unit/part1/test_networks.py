"""Encoder and decoder: shapes, ranges, and the recommended layers."""

import pytest
import torch
from torch import nn


@pytest.mark.parametrize(("batch_size", "num_filters", "z_dim"), [(1, 8, 2), (3, 5, 7), (11, 32, 20)])
def test_encoder_outputs(part1, batch_size, num_filters, z_dim):
    encoder = part1.cnn_encoder_decoder.CNNEncoder(num_filters=num_filters, z_dim=z_dim)
    mean, log_std = encoder(torch.randint(16, (batch_size, 1, 28, 28)))
    assert mean.shape == log_std.shape == (batch_size, z_dim)
    assert mean.dtype == log_std.dtype == torch.float32


def test_encoder_outputs_have_either_sign(part1):
    """A log standard deviation is not restricted to positive numbers, as a standard deviation is."""
    encoder = part1.cnn_encoder_decoder.CNNEncoder(num_filters=8, z_dim=13)
    for output in encoder(torch.randint(16, (17, 1, 28, 28))):
        assert output.min() < 0 < output.max()


def test_encoder_scales_grey_values(part1):
    encoder = part1.cnn_encoder_decoder.CNNEncoder(num_filters=4, z_dim=3)
    seen = []
    first = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.zeros(2, 1, 28, 28, dtype=torch.long)
    images[0, 0, 3, 5], images[1, 0, 3, 5] = 15, 5
    encoder(images)
    assert seen[0][:, 0, 3, 5].tolist() == pytest.approx([1.0, -1 / 3])
    assert seen[0][0, 0, 0, 0].item() == pytest.approx(-1.0)


@pytest.mark.parametrize(("batch_size", "num_values", "z_dim"), [(1, 16, 20), (3, 7, 2), (11, 16, 5)])
def test_decoder_returns_logits(part1, batch_size, num_values, z_dim):
    decoder = part1.cnn_encoder_decoder.CNNDecoder(num_input_channels=num_values, num_filters=8, z_dim=z_dim)
    logits = decoder(torch.randn(batch_size, z_dim))
    assert logits.shape == (batch_size, num_values, 28, 28)
    assert not torch.allclose(logits.sum(dim=1), torch.ones(batch_size, 28, 28)), "these are probabilities, not logits"
    assert logits.min() < 0 < logits.max()
    assert decoder.device == torch.device("cpu")


def test_latent_dimensions_matter(part1):
    decoder = part1.cnn_encoder_decoder.CNNDecoder(num_filters=8, z_dim=5)
    z = torch.zeros(6, 5)
    z[1:] = torch.eye(5)
    logits = decoder(z)
    assert all(not torch.allclose(logits[0], logits[i]) for i in range(1, 6))


def test_gradients_reach_every_parameter(part1):
    networks = part1.cnn_encoder_decoder
    encoder, decoder = networks.CNNEncoder(num_filters=4, z_dim=3), networks.CNNDecoder(num_filters=4, z_dim=3)
    mean, log_std = encoder(torch.randint(16, (5, 1, 28, 28)))
    decoder(mean + log_std.exp()).square().sum().backward()
    for parameter in [*encoder.parameters(), *decoder.parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_the_recommended_layers(part1):
    """Parameters counted by hand: 3x3 kernels and biases of the convolutions, and the two linear layers."""
    c, z_dim = 32, 20
    conv = lambda n_in, n_out: 9 * n_in * n_out + n_out  # noqa: E731
    encoder = conv(1, c) + conv(c, c) + conv(c, 2 * c) + 2 * conv(2 * c, 2 * c) + (2 * c * 16 + 1) * 2 * z_dim
    decoder = (z_dim + 1) * 2 * c * 16 + 2 * conv(2 * c, 2 * c) + conv(2 * c, c) + conv(c, c) + conv(c, 16)
    networks = part1.cnn_encoder_decoder
    for network, count in ((networks.CNNEncoder(), encoder), (networks.CNNDecoder(), decoder)):
        assert sum(parameter.numel() for parameter in network.parameters()) == count
        assert sum(isinstance(module, nn.GELU) for module in network.modules()) == 5

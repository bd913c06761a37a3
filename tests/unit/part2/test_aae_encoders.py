"""The Gaussian and the universal encoder of part 2."""

from argparse import Namespace

import pytest
import torch
from scipy import stats
from torch import nn

NOISY = ["gaussian", "universal"]


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28) * 2 - 1


def with_constant_posterior(encoder, mean: float, log_std: float):
    """The encoder, which from now on gives every image the same posterior."""
    last = encoder.net[-1]
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([mean, log_std]).repeat_interleave(len(last.bias) // 2))
    return encoder


@pytest.mark.parametrize("kind", NOISY)
@pytest.mark.parametrize(("batch_size", "z_dim"), [(1, 2), (11, 7)])
def test_shapes(part2, kind, batch_size, z_dim):
    model = part2.encoders.build_aae(z_dim, kind)
    recon, z = model(images(batch_size))
    assert z.shape == (batch_size, z_dim) and recon.shape == (batch_size, 1, 28, 28)
    assert model.encoder.device == torch.device("cpu")


@pytest.mark.parametrize("kind", NOISY)
def test_noise_of_every_image_and_call(part2, kind):
    encoder = part2.encoders.build_aae(5, kind).encoder
    same = images(1).expand(3, -1, -1, -1)
    first, second = encoder(same), encoder(same)
    for a, b in ((first[0], first[1]), (first[1], first[2]), (first[0], second[0])):
        assert not torch.allclose(a, b)
    assert len(first[0].unique()) == 5, "and every dimension"


def test_gaussian_draws(part2):
    encoder = with_constant_posterior(part2.encoders.GaussianEncoder(3), mean=5.0, log_std=-1.0)
    mean, log_std = encoder.posterior(images(2))
    assert mean.shape == log_std.shape == (2, 3)
    assert (mean == 5).all() and (log_std == -1).all()
    z = encoder(images(1000)).detach()
    for column in z.T:
        assert stats.kstest(column.numpy(), "norm", args=(5.0, torch.tensor(-1.0).exp().item())).pvalue > 1e-3
    assert torch.corrcoef(z.T)[0, 1].abs() < 0.15


def test_gradients_of_mean_and_log_std(part2):
    """z = mean + std * eps: the sum of all codes has the gradients 1 and std * eps = z - mean."""
    encoder = with_constant_posterior(part2.encoders.GaussianEncoder(3), mean=5.0, log_std=-1.0)
    z = encoder(images(11))
    z.sum().backward()
    bias = encoder.net[-1].bias.grad
    torch.testing.assert_close(bias[:3], torch.full((3,), 11.0))
    torch.testing.assert_close(bias[3:], (z.detach() - 5).sum(dim=0))


def test_a_log_std_whose_exp_would_overflow(part2):
    encoder = with_constant_posterior(part2.encoders.GaussianEncoder(3), mean=5.0, log_std=100.0)
    z = encoder(images(11))
    z.square().sum().backward()
    assert z.isfinite().all() and all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_universal_posterior_need_not_be_normal(part2):
    """With a network set by hand, a code is the ramp of the noise at one pixel, scaled: half of all draws are 0."""
    encoder = part2.encoders.UniversalEncoder(1)
    for parameter in encoder.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        encoder.net[0].weight[0, 1, 1, 1] = 100.0  # GELU is a ramp at this scale
        for layer in (2, 4, 6, 8):
            encoder.net[layer].weight[0, 0, 1, 1] = 1.0
        encoder.net[11].weight[0, 0] = 0.01
    z = encoder(images(1500)).detach().flatten()
    assert z.min() > -1e-3
    assert (z < 1e-2).float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert z.mean().item() == pytest.approx(0.3989, abs=0.06)  # of max(0, N(0, 1)): 1 / sqrt(2 pi)


@pytest.mark.parametrize("kind", NOISY)
def test_noise_is_on_the_device_of_the_images(part2, kind):
    """The meta device has shapes and no values; tensors of the CPU cannot be combined with its own."""
    model = part2.encoders.build_aae(3, kind).to("meta")
    recon, z = model(torch.zeros(2, 1, 28, 28, device="meta"))
    assert recon.device == z.device == torch.device("meta")


@pytest.mark.parametrize("kind", NOISY)
def test_evaluation_repeats_its_draws(part2, kind, tmp_path):
    """One for each image, and the training's random state stays."""
    model = part2.encoders.build_aae(3, kind)
    loader = part2.mnist.digits(limit=200)[1]
    state, found = torch.get_rng_state(), []
    for _ in range(2):
        with part2.evaluation.evaluating(model):
            found.append(part2.evaluation.encode(model, loader))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    board = Namespace(log_dir=str(tmp_path), add_image=lambda tag, grid, global_step: None)
    for epoch in (1, 2):
        torch.rand(epoch)
        part2.train.save_reconstruction(model, epoch, board, images(4) * 0)
    first, second = ((tmp_path / f"results/Reconstruction/reconstruction_{n}.png").read_bytes() for n in (1, 2))
    assert first == second


def test_names(part2):
    assert tuple(part2.encoders.ENCODERS) == part2.args.ENCODERS
    for name, kind in part2.encoders.ENCODERS.items():
        assert type(part2.encoders.build_aae(3, name).encoder) is kind
    assert type(part2.models.AdversarialAE().encoder) is part2.encoders.ENCODERS["deterministic"]

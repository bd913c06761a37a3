"""Extreme numbers in the models: losses and gradients are finite, or the training stops with a sentence."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Categorical, Normal, kl_divergence

from gpt_models import small_gpt

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
ids = [str(dtype).removeprefix("torch.") for dtype in DTYPES]


def assert_finite_gradients(*tensors) -> None:
    assert all(tensor.grad is not None and bool(tensor.grad.isfinite().all()) for tensor in tensors)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize(("mean", "log_std"), [(0, 0), (300, -50), (-1e4, -5), (0, 5), (3e4, 0)])
def test_kld_of_extreme_posteriors(part1, dtype, mean, log_std):
    """KL(N(m, s^2) || N(0, 1)); 16-bit inputs give it in float32."""
    mean = torch.full((2, 3), float(mean), dtype=dtype, requires_grad=True)
    log_std = torch.full((2, 3), float(log_std), dtype=dtype, requires_grad=True)
    kld = part1.utils.KLD(mean, log_std)
    kld.sum().backward()
    m, s = mean.detach().double(), log_std.detach().double().exp()
    expected = kl_divergence(Normal(m, s), Normal(torch.zeros_like(m), torch.ones_like(s))).sum(dim=-1)
    assert torch.allclose(kld.double(), expected, rtol=1e-5) and kld.dtype in (torch.float32, torch.float64)
    assert_finite_gradients(mean, log_std)


def test_kld_where_log_std_is_50(part1):
    """1/2 (e^100 - 100 - 1) = 1.3e43 is beyond float32, so the loss is infinite, at which a training stops; float64
    holds it."""
    wide = torch.full((1, 1), 50.0, dtype=torch.float64)
    assert part1.utils.KLD(torch.zeros_like(wide), wide).item() == pytest.approx(math.exp(100) / 2, rel=1e-12)
    assert part1.utils.KLD(torch.zeros(1, 1), wide.float()).item() == math.inf


@pytest.mark.parametrize("log_std", [-50.0, 50.0])
def test_the_reparameterisation_of_extreme_log_stds(part1, log_std):
    mean, log_std = torch.zeros(4, 3, requires_grad=True), torch.full((4, 3), log_std, requires_grad=True)
    z = part1.utils.sample_reparameterize(mean, log_std.exp())
    assert bool(z.isfinite().all())
    z.sum().backward()
    assert_finite_gradients(mean, log_std)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("grey", [0, 15])
def test_the_reconstruction_loss_of_logits_of_ten_thousand(part1, dtype, grey):
    """All black or all white images, with logits of ±10^4: where all say so, the loss is log of the number of values
    that say so, else the distance of the logits."""
    imgs = torch.full((2, 1, 28, 28), grey)
    logits = torch.full((2, 16, 28, 28), -1e4, dtype=dtype)
    logits[0, grey] = 1e4  # right: loss 0
    logits[1, 7] = 1e4  # wrong: 2 * 10^4 a pixel
    logits.requires_grad_()
    loss = part1.utils.reconstruction_loss(logits, imgs)
    loss.sum().backward()
    height = logits[0, grey, 0, 0].detach().double().item() * 2  # bfloat16 rounds 10^4
    assert loss.tolist() == pytest.approx([0, height * 784], rel=1e-6)
    oracle = -Categorical(logits=logits.detach().double().permute(0, 2, 3, 1)).log_prob(imgs[:, 0]).sum(dim=(1, 2))
    assert torch.allclose(loss.double(), oracle, rtol=1e-6)
    assert_finite_gradients(logits)
    assert bool(part1.utils.mean_intensity(logits).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["32-bit", "bf16-mixed"])
@pytest.mark.parametrize("grey", [0, 15])
def test_a_step_of_the_vae_on_black_and_on_white_images(part1, grey, dtype):
    vae = part1.train_pl.VAE(num_filters=4, z_dim=3, lr=1e-3)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        losses = vae(torch.full((3, 1, 28, 28), grey))
    losses[2].backward()
    assert all(loss.isfinite() for loss in losses)
    assert_finite_gradients(*vae.parameters())


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=["float32", "float64", "bfloat16"]
)
@pytest.mark.parametrize("encoder", ["deterministic", "gaussian", "universal"])
@pytest.mark.parametrize("grey", [-1.0, 1.0])
def test_a_step_of_the_autoencoder_on_black_and_on_white_images(part2, grey, encoder, dtype):
    model = part2.models.AdversarialAE(z_dim=3, encoder=encoder).to(dtype)
    x = torch.full((4, 1, 28, 28), grey, dtype=dtype)
    recon, z = model(x)
    loss, parts = model.get_loss_autoencoder(x, recon, z, lambda_=0.5)
    loss.backward()
    assert_finite_gradients(*model.encoder.parameters(), *model.decoder.parameters())
    disc, more = model.get_loss_discriminator(z)
    disc.backward()
    assert_finite_gradients(*model.discriminator.parameters())
    assert all(value.isfinite() for value in (*parts.values(), *more.values()))


@pytest.mark.parametrize("lambda_", [0, 0.5, 1])
@pytest.mark.parametrize("size", [1e6, 1e20])
def test_huge_codes_in_the_autoencoder(part2, size, lambda_):
    """They make huge logits, of which the losses grow no faster than in proportion."""
    model = part2.models.AdversarialAE(z_dim=3)
    x = torch.zeros(4, 1, 28, 28)
    z = torch.full((4, 3), size) * torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    z.requires_grad_()
    loss, parts = model.get_loss_autoencoder(x, model.decoder(z), z, lambda_)
    loss.backward()
    disc, more = model.get_loss_discriminator(z)
    disc.backward()
    assert all(value.isfinite() for value in (*parts.values(), *more.values()))
    assert parts["recon_loss"] <= 1, "images in [-1, 1], whose target is 0"
    logits = model.discriminator(z.detach()).double()
    assert parts["gen_loss"].item() == pytest.approx(F.softplus(-logits).mean().item(), rel=1e-5)
    assert_finite_gradients(z, *model.discriminator.parameters())


@pytest.mark.parametrize("log_std", [-50.0, 50.0])
def test_extreme_log_stds_in_the_gaussian_encoder(part2, log_std, monkeypatch):
    model = part2.models.AdversarialAE(z_dim=3, encoder="gaussian")
    mean, log_std = torch.zeros(2, 3, requires_grad=True), torch.full((2, 3), log_std, requires_grad=True)
    monkeypatch.setattr(model.encoder, "posterior", lambda x: (mean, log_std))
    x = torch.ones(2, 1, 28, 28)
    recon, z = model(x)
    loss, _ = model.get_loss_autoencoder(x, recon, z, 0.5)
    loss.backward()
    assert loss.isfinite()
    assert_finite_gradients(mean, log_std)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_logits_of_ten_thousand_in_the_gpt(part3, dtype):
    """The loss is at most the distance of the logits."""
    model = small_gpt(part3).to(dtype).train()
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4 / model(torch.arange(11)[None]).abs().max())
    idx = torch.randint(13, (4, 11))
    logits = model(idx)
    assert logits.abs().max() > 1e3
    loss = F.cross_entropy(logits.float().flatten(0, 1), idx.roll(-1, 1).flatten())
    loss.backward()
    expected = -Categorical(logits=logits.detach().double()).log_prob(idx.roll(-1, 1)).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert_finite_gradients(*model.parameters())

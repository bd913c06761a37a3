"""The VAE's losses: sums over an image, means over the batch, and their sum in bits per dimension."""

import math
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.distributions import Categorical, Normal, kl_divergence
from torch.utils.data import DataLoader


class FixedEncoder(nn.Module):
    """Gives every image the same posterior."""

    def __init__(self, mean: torch.Tensor, log_std: torch.Tensor):
        super().__init__()
        self.mean, self.log_std = mean, log_std

    def forward(self, x):
        return self.mean.expand(len(x), -1), self.log_std.expand(len(x), -1)


class FixedDecoder(nn.Module):
    """Gives every latent vector the same logits [16, 28, 28]."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, z):
        return self.logits.expand(len(z), -1, -1, -1)

    @property
    def device(self):
        return self.logits.device


@pytest.fixture
def vae(part1):
    return part1.train_pl.VAE(num_filters=4, z_dim=3, lr=1e-3)


def losses(vae, images) -> list[float]:
    return [loss.item() for loss in vae(images)]


def test_zero_weights_make_grey_values_equally_likely(vae):
    for parameter in vae.parameters():
        nn.init.zeros_(parameter)
    expected = [784 * math.log(16), 0.0, 4.0]
    assert losses(vae, torch.randint(16, (7, 1, 28, 28))) == pytest.approx(expected, rel=1e-5)


def test_losses_are_scalars(vae):
    assert [loss.shape for loss in vae(torch.randint(16, (5, 1, 28, 28)))] == [torch.Size([])] * 3


def test_against_torch_distributions(vae):
    mean, log_std = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.1, -0.5, -2.0])
    logits = 3 * torch.randn(16, 28, 28)
    vae.encoder, vae.decoder = FixedEncoder(mean, log_std), FixedDecoder(logits)
    images = torch.randint(16, (5, 1, 28, 28))

    pixels = Categorical(logits=logits.permute(1, 2, 0))
    nll = -pixels.log_prob(images.squeeze(1)).sum(dim=(1, 2)).mean()
    kl = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).sum()
    bpd = (nll + kl) / (784 * math.log(2))
    assert losses(vae, images) == pytest.approx([nll.item(), kl.item(), bpd.item()], rel=1e-5)


def test_the_pixel_decides_which_logit_counts(vae):
    """A decoder that is sure of a picture: its own picture costs nothing, a wrong pixel costs the logit's size."""
    picture = torch.arange(784).remainder(16).view(28, 28)
    logits = 40.0 * nn.functional.one_hot(picture, 16).permute(2, 0, 1)
    vae.encoder = FixedEncoder(torch.zeros(3), torch.zeros(3))
    vae.decoder = FixedDecoder(logits)
    assert losses(vae, picture.view(1, 1, 28, 28)) == pytest.approx([0.0, 0.0, 0.0], abs=1e-4)
    wrong = picture.clone()
    wrong[2, 3] = (wrong[2, 3] + 1) % 16
    assert losses(vae, wrong.view(1, 1, 28, 28))[0] == pytest.approx(40.0, rel=1e-4)


@pytest.mark.parametrize("copies", [2, 5])
def test_the_batch_size_does_not_matter(vae, copies):
    vae.encoder = FixedEncoder(torch.tensor([1.0, -2.0, 0.5]), torch.full((3,), -30.0))
    image = torch.randint(16, (1, 1, 28, 28))
    assert losses(vae, image.expand(copies, -1, -1, -1)) == pytest.approx(losses(vae, image), rel=1e-5)


def test_latent_vector_is_sampled(vae):
    vae.encoder = FixedEncoder(torch.zeros(3), torch.zeros(3))
    image = torch.randint(16, (2, 1, 28, 28))
    assert losses(vae, image)[0] != losses(vae, image)[0]


def test_a_step_moves_all_weights(vae):
    before = {name: parameter.clone() for name, parameter in vae.named_parameters()}
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.1)
    vae(torch.randint(16, (5, 1, 28, 28)))[2].backward()
    optimizer.step()
    assert all(not torch.equal(before[name], parameter) for name, parameter in vae.named_parameters())


def test_one_cycle(part1):
    """From 4e-4 in 15 of 100 steps to 4e-3, and along half a cosine to 4e-6; momentum stays."""
    vae = part1.train_pl.VAE(num_filters=2, z_dim=2, lr=1e-3, lr_schedule="one-cycle")
    vae._trainer = SimpleNamespace(estimated_stepping_batches=100)
    found = vae.configure_optimizers()
    optimizer, rates = found["optimizer"], []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["betas"] == (0.9, 0.99)
        optimizer.step()
        found["lr_scheduler"]["scheduler"].step()
    assert [rates[0], rates[14], rates[-1]] == pytest.approx([4e-4, 4e-3, 4e-6])
    middle = 14 + 85 / 2  # between the highest and the lowest
    assert (rates[int(middle)] + rates[int(middle) + 1]) / 2 == pytest.approx((4e-3 + 4e-6) / 2, rel=1e-3)


def test_optimizer_is_adam_over_all_parameters(part1):
    vae = part1.train_pl.VAE(num_filters=4, z_dim=3, lr=0.0123)
    optimizer = vae.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["lr"] == 0.0123
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in vae.parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grey", [0, 15])
def test_reconstruction_loss_of_huge_logits(part1, dtype, grey):
    """Black or white images, with logits of ±10^4 for the right and for a wrong value."""
    logits = torch.full((2, 16, 28, 28), -1e4, dtype=dtype)
    logits[0, grey] = logits[1, 7] = 1e4
    logits.requires_grad_()
    loss = part1.utils.reconstruction_loss(logits, torch.full((2, 1, 28, 28), grey))
    loss.sum().backward()
    distance = 2 * logits[0, grey, 0, 0].item()  # bfloat16 rounds 10^4
    assert loss.tolist() == pytest.approx([0, distance * 784], rel=1e-6)
    assert logits.grad.isfinite().all() and part1.utils.mean_intensity(logits).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grey", [0, 15])
def test_black_and_white_images(vae, grey, dtype):
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = vae(torch.full((3, 1, 28, 28), grey))
    found[2].backward()
    assert all(loss.isfinite() for loss in found)
    assert all(parameter.grad.isfinite().all() for parameter in vae.parameters())


def test_means_are_over_images(vae):
    """Batches of 3 and 1 images, and a decoder that is sure of grey value 0; another pixel costs 40 nats. One of four
    images for training is all wrong, and three of four for validation."""
    vae.encoder = FixedEncoder(torch.zeros(3), torch.zeros(3))
    vae.decoder = FixedDecoder(40.0 * nn.functional.one_hot(torch.zeros(28, 28).long(), 16).permute(2, 0, 1))
    vae.hparams.lr = 0.0

    def loader(greys: list[int]) -> DataLoader:
        return DataLoader([(torch.full((1, 28, 28), grey), 0) for grey in greys], batch_size=3)

    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, num_sanity_val_steps=0,
                         enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(vae, loader([0, 0, 0, 15]), loader([15, 15, 15, 0]))
    expected = {"train_bpd": 10 / math.log(2), "val_bpd": 30 / math.log(2), "train_reconstruction_loss": 7840,
                "val_ELBO": 3 * 7840, "val_regularization_loss": 0}  # fmt: skip
    found = {name: trainer.callback_metrics[name].item() for name in expected}
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)

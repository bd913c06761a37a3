"""The game's losses: their values by hand, their weights, and whom their gradients reach."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn


class FirstCoordinate(nn.Module):
    """A discriminator set by hand: its logit is a * z_1 + b, so a code's first number decides."""

    def __init__(self, a: float = 1.0, b: float = 0.0):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

    def forward(self, z):
        return self.a * z[:, :1] + self.b

    @property
    def device(self):
        return self.a.device


@pytest.fixture
def model(part2):
    return part2.models.AdversarialAE(z_dim=3)


def zeroed(model):
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def images(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28) * 2 - 1


def autoencoder_losses(model, x, lambda_) -> dict[str, float]:
    with torch.no_grad():
        loss, parts = model.get_loss_autoencoder(x, *model(x), lambda_=lambda_)
    values = {name: float(value) for name, value in parts.items()}
    assert values["ae_loss"] == pytest.approx(loss.item())
    return values


def test_zero_weights(model):
    values = autoencoder_losses(zeroed(model), torch.zeros(7, 1, 28, 28), lambda_=0.5)
    assert values["gen_loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert values["recon_loss"] == 0
    loss, parts = model.get_loss_discriminator(torch.randn(7, 3))
    for value in (loss, parts["disc_loss"], parts["loss_real"], parts["loss_fake"]):
        assert torch.as_tensor(value).item() == pytest.approx(math.log(2), rel=1e-6)


def test_losses_are_scalars_with_named_parts(model):
    x = images()
    recon, z = model(x)
    for (loss, parts), names in (
        (model.get_loss_autoencoder(x, recon, z, lambda_=0.9), {"gen_loss", "recon_loss", "ae_loss"}),
        (model.get_loss_discriminator(z), {"disc_loss", "loss_real", "loss_fake", "accuracy"}),
    ):
        assert loss.shape == torch.Size([]) and loss.requires_grad
        assert set(parts) == names and not any(value.requires_grad for value in parts.values())


def test_reconstruction_by_hand(model):
    x, recon = torch.zeros(2, 1, 28, 28), torch.zeros(2, 1, 28, 28)
    recon[0, 0, :, :14], x[1, 0, 3, 5] = 0.5, -1.0
    # Of 2 * 784 squared errors 392 are 0.25 and one is 1.
    _, parts = model.get_loss_autoencoder(x, recon, torch.zeros(2, 3), lambda_=1)
    assert float(parts["recon_loss"]) == pytest.approx((392 * 0.25 + 1) / 1568)


@pytest.mark.parametrize("lambda_", [0, 0.25, 0.5, 0.995, 1])
def test_lambda_weighs_the_terms(model, lambda_):
    values = autoencoder_losses(model, images(), lambda_)
    expected = lambda_ * values["recon_loss"] + (1 - lambda_) * values["gen_loss"]
    assert values["ae_loss"] == pytest.approx(expected, rel=1e-6)
    assert abs(values["recon_loss"] - values["gen_loss"]) > 0.1, "the two must differ for the weights to show"


def test_generator_by_hand(model):
    """Logits 2 and -1: the mean of -log sigmoid is (log(1 + e^-2) + log(1 + e)) / 2. Swapped roles would give
    (log(1 + e^2) + log(1 + e^-1)) / 2 = 1.22 instead of 0.72."""
    model.discriminator = FirstCoordinate()
    z = torch.tensor([[2.0, 9.0, 9.0], [-1.0, 9.0, 9.0]])
    x = images(2)
    _, parts = model.get_loss_autoencoder(x, x, z, lambda_=0.5)
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
    assert float(parts["gen_loss"]) == pytest.approx(expected, rel=1e-5)


def test_discriminator_by_hand(model):
    """Codes with logit -3 are called fake rightly; a discriminator with logit 4 for everything calls the prior real."""
    model.discriminator = FirstCoordinate(a=0.0, b=4.0)
    _, parts = model.get_loss_discriminator(torch.randn(5, 3))
    assert float(parts["loss_real"]) == pytest.approx(math.log1p(math.exp(-4)), rel=1e-4)
    assert float(parts["loss_fake"]) == pytest.approx(math.log1p(math.exp(4)), rel=1e-5)
    model.discriminator = FirstCoordinate()
    _, parts = model.get_loss_discriminator(torch.full((5, 3), -3.0))
    assert float(parts["loss_fake"]) == pytest.approx(math.log1p(math.exp(-3)), rel=1e-4)


@pytest.mark.parametrize(
    ("bias", "fakes", "expected"),
    [
        (100.0, [-300.0, -300.0, -300.0, 1.0], 7 / 8),  # the prior is called real, one code of four is missed
        (100.0, [1.0, 1.0, 1.0, 1.0], 1 / 2),
        (-100.0, [-1.0, -1.0, 300.0, 300.0], 1 / 4),  # the prior is missed, and half of the codes
        (-100.0, [300.0, 300.0, 300.0, 300.0], 0.0),
    ],
)
def test_accuracy_by_hand(model, bias, fakes, expected):
    """The bias is so large that all of the prior's draws fall on one side."""
    model.discriminator = FirstCoordinate(b=bias)
    z = torch.zeros(4, 3)
    z[:, 0] = torch.tensor(fakes)
    _, parts = model.get_loss_discriminator(z)
    assert float(parts["accuracy"]) == pytest.approx(expected)


def test_large_logits_stay_finite(model):
    model.discriminator = FirstCoordinate(a=1e4)
    z = torch.full((5, 3), -1.0, requires_grad=True)
    x = images()
    loss, _ = model.get_loss_autoencoder(x, x, z, lambda_=0)
    assert loss.item() == pytest.approx(1e4, rel=1e-4)
    assert all(math.isfinite(float(value)) for value in model.get_loss_discriminator(z)[1].values())


def test_lambda_one_ignores_the_discriminator(model):
    """With λ = 1 the encoder's gradients equal those of the reconstruction alone, whatever the discriminator says."""
    x = images()
    F.mse_loss(model(x)[0], x).backward()
    expected = [parameter.grad.clone() for parameter in model.encoder.parameters()]
    model.zero_grad()
    for parameter in model.discriminator.parameters():
        nn.init.normal_(parameter, std=1e3)
    model.get_loss_autoencoder(x, *model(x), lambda_=1)[0].backward()
    for parameter, gradient in zip(model.encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("lambda_", [0, 0.5])
def test_generator_moves_the_encoder(model, lambda_):
    x = images()
    _, z = model(x)
    model.get_loss_autoencoder(x, x, z, lambda_=lambda_)[0].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.encoder.parameters())


def test_discriminator_loss_detaches_codes(model):
    _, z = model(images())
    model.get_loss_discriminator(z)[0].backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())


def test_infinite_generator_loss_with_lambda_one(model):
    x = images()
    recon, z = model(x)
    with torch.no_grad():
        model.discriminator.net[0].weight.fill_(torch.nan)
    loss, parts = model.get_loss_autoencoder(x, recon, z, lambda_=1)
    loss.backward()
    assert loss.isfinite() and parts["gen_loss"].isnan()
    assert all(p.grad.isfinite().all() for n in (model.encoder, model.decoder) for p in n.parameters())


@pytest.mark.parametrize("lambda_", [-0.1, 1.1, math.nan])
def test_lambda_outside_zero_and_one(model, lambda_):
    x = images()
    with pytest.raises(ValueError, match="lambda_ must lie in"):
        model.get_loss_autoencoder(x, *model(x), lambda_=lambda_)


def test_sixteen_bits(model):
    """Losses of networks in bfloat16 are computed in float32."""
    model, x = model.to(torch.bfloat16), images()
    for loss, parts in (model.get_loss_autoencoder(x, *model(x), 0.5), model.get_loss_discriminator(torch.zeros(5, 3))):
        assert loss.dtype == torch.float32
        assert all(value.dtype == torch.float32 for value in parts.values())

"""The report's estimates of log p(x), against models for which it is known or integrated by scipy."""

import json
import math
from argparse import Namespace

import pytest
import torch
from scipy.integrate import dblquad
from scipy.stats import norm
from torch import nn

from part_loader import load_script

pytestmark = pytest.mark.usefixtures("no_network")

MEAN, STD = torch.tensor([0.3, -0.7]), torch.tensor([0.5, 0.8])


class Model(nn.Module):
    """Two latent dimensions; the first pixel is white instead of black with probability sigmoid(a z_1 + b z_2), the
    others are white or black with probability 1/2 each."""

    def __init__(self, slopes=(0.0, 0.0)):
        super().__init__()
        self.slopes, self.hparams = torch.tensor(slopes), Namespace(z_dim=2)

    def encoder(self, imgs):
        return MEAN.expand(len(imgs), -1), STD.log().expand(len(imgs), -1)

    def decoder(self, z):
        logits = torch.full((len(z), 16, 28, 28), -math.inf)
        logits[:, (0, 15)] = 0.0
        logits[:, 15, 0, 0] = z @ self.slopes
        return logits.clamp(min=-1e4)  # a one-hot zero times minus infinity would be no number


@pytest.fixture
def likelihood(part1, repository):
    return load_script(repository / "report" / "likelihood.py")


@pytest.fixture
def images():
    """Two random pictures in black and white; the first pixel is white in the first, black in the second."""
    pixels = 15 * torch.randint(0, 2, (2, 1, 28, 28))
    pixels[0, 0, 0, 0], pixels[1, 0, 0, 0] = 15, 0
    return pixels


@pytest.mark.slow
def test_estimates_against_an_integral(likelihood, images):
    model = Model(slopes=(3.0, -2.0))
    for estimate in (likelihood.from_prior, likelihood.from_encoder):
        found = estimate(model, images, (3000,))[0]
        for image, sign in ((0, 1), (1, -1)):
            assert found[image].item() == pytest.approx(exact_log_px(sign), abs=0.2)


def exact_log_px(sign: int) -> float:
    def integrand(z_2, z_1):
        return norm.pdf(z_1) * norm.pdf(z_2) / (1 + math.exp(-sign * (3 * z_1 - 2 * z_2)))

    return math.log(dblquad(integrand, -6, 6, -6, 6, epsabs=1e-6)[0]) - 783 * math.log(2)


@pytest.mark.slow
def test_gaps_are_those_of_the_integrals(likelihood, images):
    """log p(x) = ELBO + KL(q || p(z|x)), each computed in its own way."""
    rows = likelihood.gaps(Model(slopes=(3.0, -2.0)), images, spacing=0.125)
    for row, sign in zip(rows, (1, -1), strict=True):
        assert row["q_on_grid"] == pytest.approx(1, abs=1e-6)
        assert row["log_px"] == pytest.approx(exact_log_px(sign), abs=5e-3)
        assert row["elbo"] + row["gap"] == pytest.approx(row["log_px"], abs=5e-3)
        assert row["gap"] > 0.01


def test_the_command(likelihood, part1, tmp_path, monkeypatch):
    """For a VAE with two latent dimensions after one epoch on the small digits."""
    part1.train_pl.train_vae(
        Namespace(dataset="digits", batch_size=675, num_filters=4, z_dim=2, epochs=1, log_dir=str(tmp_path))
    )
    run = tmp_path / "lightning_logs" / "version_0"
    monkeypatch.setattr(likelihood, "SAMPLES", (1, 5, 7, 11))
    gaps = likelihood.gaps
    monkeypatch.setattr(likelihood, "gaps", lambda *args: gaps(*args, spacing=0.5))
    likelihood.compute(Namespace(checkpoint=str(run), images=3, repetitions=2))
    result = json.loads((run / "likelihood.json").read_text())
    assert (result["z_dim"], result["images"], result["repetitions"], len(result["gaps"])) == (2, 3, 2, 3)
    assert result["prior"]["samples"] == [1, 5, 7, 11] and result["encoder"]["samples"] == [1, 5]
    # Nothing has been learned: an image of 784 pixels with 16 values each.
    assert result["encoder"]["mean_log_px"][-1] == pytest.approx(-784 * math.log(16), rel=0.1)
    with pytest.raises(part1.run.InputError, match="nowhere"):
        likelihood.compute(Namespace(checkpoint="nowhere"))

"""The report's estimates of log p(x), against models for which it is known or integrated by scipy."""

import json
import math
from argparse import Namespace

import pytest
import torch
from scipy.integrate import dblquad
from scipy.stats import norm
from torch import nn
from torch.distributions import Normal, kl_divergence

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


def test_estimates_where_the_image_does_not_depend_on_the_code(likelihood, images):
    """log p(x) is -784 log 2. The prior's samples all say so; the encoder's weights are p(z) / q(z), of mean 1."""
    model, exact = Model(), -784 * math.log(2)
    prior = likelihood.from_prior(model, images, (1, 7, 101))
    torch.testing.assert_close(prior, torch.full((3, 2), exact, dtype=torch.float64), rtol=0, atol=5e-3)
    q, p = Normal(MEAN.double(), STD.double()), Normal(0.0, 1.0)
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)[:, None]
    second_moment = ((2 * p.log_prob(z) - q.log_prob(z)).exp().sum(dim=0) * 24 / 200_000).prod().item()
    found = likelihood.from_encoder(model, images, (3000,))
    assert (found - exact).abs().max() < 5 * math.sqrt((second_moment - 1) / 3000)


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


def test_gaps_add_up_and_are_those_of_the_integrals(likelihood, images):
    """log p(x) = ELBO + KL(q || p(z|x)), each computed in its own way."""
    rows = likelihood.gaps(Model(slopes=(3.0, -2.0)), images, spacing=0.125)
    for row, sign in zip(rows, (1, -1), strict=True):
        assert row["q_on_grid"] == pytest.approx(1, abs=1e-6)
        assert row["log_px"] == pytest.approx(exact_log_px(sign), abs=5e-3)
        assert row["elbo"] + row["gap"] == pytest.approx(row["log_px"], abs=5e-3)
        assert row["gap"] > 0.01


def test_codes_beyond_the_usual_square_are_integrated_too(likelihood, images):
    """An unusual image's code can lie outside of what a prior's sample ever reaches."""
    far = torch.tensor([6.3, -0.7])
    model = Model()
    model.encoder = lambda imgs: (far.expand(len(imgs), -1), STD.log().expand(len(imgs), -1))
    divergence = kl_divergence(Normal(far, STD), Normal(0.0, 1.0)).sum().item()
    for row in likelihood.gaps(model, images, spacing=0.125):
        assert row["q_on_grid"] == pytest.approx(1, abs=1e-6)
        assert row["gap"] == pytest.approx(divergence, abs=5e-3)


def test_a_narrow_posterior_is_seen_by_the_grid(likelihood, images):
    """Its standard deviation is a third of the spacing that was asked for."""
    model = Model(slopes=(3.0, -2.0))
    model.encoder = lambda imgs: (MEAN.expand(len(imgs), -1), torch.full((len(imgs), 2), math.log(0.04)))
    for row in likelihood.gaps(model, images, reach=1.5, spacing=0.125):
        assert row["q_on_grid"] == pytest.approx(1, abs=2e-5)
        assert row["elbo"] + row["gap"] == pytest.approx(row["log_px"], abs=5e-3)


def test_without_information_the_gap_is_the_divergence_from_the_prior(likelihood, images):
    rows = likelihood.gaps(Model(), images, spacing=0.125)
    divergence = kl_divergence(Normal(MEAN, STD), Normal(0.0, 1.0)).sum().item()
    for row in rows:
        assert row["log_px"] == pytest.approx(-784 * math.log(2), abs=5e-3)
        assert row["gap"] == pytest.approx(divergence, abs=5e-3)
        assert row["elbo"] == pytest.approx(row["log_px"] - divergence, abs=5e-3)


def test_samples_stand_above_their_mean_images(likelihood):
    """Half of all pixels are black and half white, so that each mean is 7.5 of 15; 2 pixels lie between pictures."""
    picture = likelihood.sample_and_mean(Model().decoder, torch.zeros(3, 2))
    assert picture.shape == (3, 2 * 30 + 2, 3 * 30 + 2)
    sample, mean = picture[0, 2:30, 32:60], picture[0, 32:60, 32:60]
    assert sample.unique().tolist() == [0, 1] and sample.mean().item() == pytest.approx(0.5, abs=0.1)
    torch.testing.assert_close(mean, torch.full((28, 28), 0.5))


@pytest.fixture(scope="module")
def run(_parts, tmp_path_factory):
    """A VAE with two latent dimensions after one epoch on the small digits."""
    log_dir = tmp_path_factory.mktemp("runs")
    with _parts["part1"].imported() as part1:
        part1.train_pl.train_vae(
            Namespace(dataset="digits", batch_size=675, num_filters=4, z_dim=2, epochs=1, log_dir=str(log_dir))
        )
    return log_dir / "lightning_logs" / "version_0"


def test_the_command_writes_into_the_run_directory(likelihood, run, monkeypatch):
    monkeypatch.setattr(likelihood, "SAMPLES", (1, 5, 7, 11))
    gaps = likelihood.gaps
    monkeypatch.setattr(likelihood, "gaps", lambda *args: gaps(*args, spacing=0.5))
    argv = ["--checkpoint", str(run), "--images", "3", "--repetitions", "2"]
    assert likelihood.main(argv) == 0
    result = json.loads((run / "likelihood.json").read_text())
    assert (result["z_dim"], result["images"], result["repetitions"], len(result["gaps"])) == (2, 3, 2, 3)
    assert result["prior"]["samples"] == [1, 5, 7, 11] and result["encoder"]["samples"] == [1, 5]
    # Nothing has been learned: an image of 784 pixels with 16 values each.
    assert result["encoder"]["mean_log_px"][-1] == pytest.approx(-784 * math.log(16), rel=0.1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--repetitions", "1"], "--repetitions must be a whole number of at least 2"),
        (["--images", "0"], "--images must be a whole number of at least 1"),
        (["--output_dir", "/proc/nowhere"], "cannot write into /proc/nowhere"),
        (["--checkpoint", "nowhere"], "nowhere is no run with a checkpoint"),
    ],
)
def test_what_cannot_be_used(likelihood, run, capsys, argv, message):
    assert likelihood.main(["--checkpoint", str(run), *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("likelihood.py: error: ") and message in error and error.count("\n") == 1

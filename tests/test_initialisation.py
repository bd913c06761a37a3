"""How the autoencoder's trainings begin, and `report/initialisation.py`, which measures it."""

import itertools
import json
import math
from argparse import Namespace

import pytest
import torch

from part_loader import load_script

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def initialisation(part2, repository):
    return load_script(repository / "report" / "initialisation.py")


def test_images_begin_at_the_mean_grey_value(part2, mnist_dir):
    images = part2.mnist.mnist_test(mnist_dir).dataset[:][0]
    for z_dim in (2, 8, 20):
        begin = part2.models.ConvDecoder(z_dim)(torch.randn(64, z_dim))
        assert begin.mean().item() == pytest.approx(images.mean().item(), abs=0.03)


@pytest.mark.parametrize("seed", [1, 2])
def test_an_ordinary_autoencoder_does_not_end_in_black(initialisation, part2, mnist_dir, seed):
    """With two codes, and with seeds that do so where the bias is PyTorch's."""
    images = part2.mnist.mnist_test(mnist_dir).dataset[:100][0]
    loader = part2.mnist.mnist(mnist_dir, 64, num_workers=0, seed=0)
    flags = Namespace(z_dim=2, lambda_=1.0, ae_lr=1e-3, d_lr=5e-3)
    found = initialisation.begin(flags, seed, False, itertools.islice(loader, 60), images)
    assert found["black"] == 0
    assert found["recon_loss"] < 0.75 * (images + 1).square().mean()


def test_black_images_are_counted(initialisation, part2, monkeypatch):
    def change(model):
        (*_, last) = (layer for layer in model.decoder.net if isinstance(layer, torch.nn.ConvTranspose2d))
        torch.nn.init.constant_(last.bias, -7)

    images = torch.rand(13, 1, 28, 28) * 2 - 1
    flags = Namespace(z_dim=3, lambda_=1.0, ae_lr=0.0, d_lr=0.0)
    found = initialisation.begin(flags, 0, True, [(images, None)], images)
    assert found["black"] == 0
    assert found["std"] == pytest.approx(part_std(part2, images), rel=1e-4)
    monkeypatch.setattr(initialisation, "with_default_bias", change)
    found = initialisation.begin(flags, 0, True, [(images, None)], images)
    assert found["black"] == 1
    assert found["recon_loss"] == pytest.approx((images + 1).square().mean().item(), rel=1e-3)


def part_std(part2, images) -> float:
    torch.manual_seed(0)
    codes = part2.models.AdversarialAE(3).encoder(images)
    return (((codes - codes.mean(0)) ** 2).sum(0) / 12).sqrt().mean().item()


def test_the_default_bias_is_that_of_a_new_layer(initialisation, part2):
    """Uniform between -1/3 and 1/3: one over the root of 1 * 3 * 3."""
    model, drawn = part2.models.AdversarialAE(2), []
    before = model.decoder.net[-2].weight.clone()
    for _ in range(200):
        initialisation.with_default_bias(model)
        drawn.append(model.decoder.net[-2].bias.item())
    assert -1 / 3 <= min(drawn) < -0.3 and 0.3 < max(drawn) <= 1 / 3
    assert torch.tensor(drawn).std().item() == pytest.approx(2 / 3 / math.sqrt(12), rel=0.15)
    assert torch.equal(model.decoder.net[-2].weight, before)


def test_the_command(initialisation, fake_mnist, tmp_path, capsys):
    argv = ["--steps", "1", "--seeds", "2", "--data_dir", str(fake_mnist), "--output_dir", str(tmp_path)]
    assert initialisation.main(argv) == 0
    result = json.loads((tmp_path / "initialisation.json").read_text())
    rows = result["rows"]
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1 == 17
    assert {(row["lambda"], row["z_dim"], row["default_bias"], row["seed"]) for row in rows} == set(
        itertools.product((1, 0.995), (2, 8), (True, False), (0, 1))
    )
    assert len({row["recon_loss"] for row in rows}) == 16
    assert result["later"] == []  # no image is black after one step
    # Pixels of 0 .. 255 with equal probabilities: twice their share of 255, squared, is 4/3 on average and a bit more.
    assert result["recon_loss_of_black"] == pytest.approx(4 / 3, rel=0.01)


def test_black_trainings_are_followed(initialisation, fake_mnist, tmp_path, monkeypatch):
    """The first two of those that count as black, through all the batches of three epochs."""
    steps = []
    train = initialisation.begin

    def count(flags, seed, default_bias, batches, images):
        batches = list(batches)
        steps.append((flags.lambda_, flags.z_dim, seed, default_bias, len(batches)))
        return train(flags, seed, default_bias, batches[:1], images)

    monkeypatch.setattr(initialisation, "begin", count)
    monkeypatch.setattr(initialisation, "is_black", lambda row, _: row["lambda"] == 1 and row["seed"] == 1)
    argv = ["--steps", "1", "--seeds", "2", "--follow", "2", "--epochs", "3", "--output_dir", str(tmp_path)]
    assert initialisation.main([*argv, "--data_dir", str(fake_mnist)]) == 0
    epoch = steps[-1][-1] // 3
    assert epoch > 1 and steps[16:] == [(1.0, 2, 1, True, 3 * epoch)] * 2
    later = json.loads((tmp_path / "initialisation.json").read_text())["later"]
    assert [(row["z_dim"], row["seed"]) for row in later] == [(2, 1), (2, 1)]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--steps", "0"], "--steps must be a whole number of at least 1, not 0"),
        (["--seeds", "-3"], "--seeds must be a whole number of at least 1, not -3"),
        (["--output_dir", "/proc/nowhere"], "cannot write into /proc/nowhere"),
    ],
)
def test_what_cannot_be_used(initialisation, capsys, argv, message):
    assert initialisation.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("initialisation.py: error: ") and message in error and error.count("\n") == 1

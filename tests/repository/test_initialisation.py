"""How the autoencoder's trainings begin, and `report/initialisation.py`, which measures it."""

import itertools
import json

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


@pytest.mark.slow
def test_the_command(initialisation, fake_mnist, tmp_path):
    argv = ["--steps", "1", "--seeds", "2", "--output_dir", str(tmp_path), "--data_dir", str(fake_mnist)]
    initialisation.compute(initialisation.build_parser().parse_args(argv))
    result = json.loads((tmp_path / "initialisation.json").read_text())
    assert {(row["lambda"], row["z_dim"], row["default_bias"], row["seed"]) for row in result["rows"]} == set(
        itertools.product((1, 0.995), (2, 8), (True, False), (0, 1))
    )
    assert len({row["recon_loss"] for row in result["rows"]}) == 16
    # Pixels of 0 .. 255 with equal probabilities: twice their share of 255, squared, is 4/3 on average and a bit more.
    assert result["recon_loss_of_black"] == pytest.approx(4 / 3, rel=0.01)

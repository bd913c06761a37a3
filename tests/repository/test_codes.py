"""`report/codes.py`: how an autoencoder's codes lie among draws from the prior, in cases that are known by hand."""

import csv
import json
import math
from argparse import Namespace

import pytest
import torch

from part_loader import load_script

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def codes(part2, repository):
    return load_script(repository / "report" / "codes.py")


def test_nearest_distances(codes):
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    others = torch.tensor([[0.0, 1.0], [3.0, 3.0]])
    torch.testing.assert_close(codes.nearest_distances(points, others), torch.tensor([[1.0], [1.0], [1.0]]))
    own = torch.tensor([[2.0, 5.0], [math.sqrt(13), 5.0], [2.0, math.sqrt(13)]])
    torch.testing.assert_close(codes.nearest_distances(points, count=2), own)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_dimension(codes, dimension):
    """Whatever space it is turned into, and however it is scaled."""
    flat = torch.rand(3000, dimension) @ torch.randn(dimension, 7) * 11 + 13
    found = codes.intrinsic_dimension(codes.nearest_distances(flat.double(), count=2))
    assert found == pytest.approx(dimension, rel=0.12)


def test_equal_distributions(codes):
    found = codes.compare(torch.randn(2000, 3), torch.randn(2000, 3))
    assert found["codes_beside_codes"] == pytest.approx(0.5, abs=0.04)
    assert found["draws_beside_draws"] == pytest.approx(0.5, abs=0.04)
    assert found["dimension_of_codes"] == pytest.approx(found["dimension_of_draws"], rel=0.1)


def test_codes_on_a_line(codes):
    """Means, covariances and marginals along the line agree; the neighbours tell."""
    line = torch.randn(3000, 1) * torch.tensor([[1.0, 0.0]])
    found = codes.compare(line, torch.randn(3000, 2))
    assert found["codes_beside_codes"] > 0.9
    assert found["draws_beside_draws"] > 0.8
    assert found["dimension_of_codes"] == pytest.approx(1, rel=0.1)
    assert found["dimension_of_draws"] == pytest.approx(2, rel=0.1)


def test_the_noise_of_each_dimension(codes):
    means = 5 * torch.randn(20_000, 3)
    first, second = (means + torch.tensor([0.0, 0.1, 2.0]) * torch.randn(20_000, 3) for _ in range(2))
    assert codes.noise(first, second) == pytest.approx([0, 0.1, 2], rel=0.03)


@pytest.mark.parametrize("z_dim", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_command(codes, part2, tmp_path, monkeypatch, z_dim):
    """Against the codes of the test images, from a run of one epoch on the small digits."""
    monkeypatch.setattr(codes, "SHOWN", 47)
    part2.train.main(Namespace(dataset="digits", batch_size=500, z_dim=z_dim, epochs=1, log_dir=str(tmp_path)))
    run = tmp_path / "version_0"
    codes.compute(Namespace(checkpoint=str(run), seed=5))
    result = json.loads((run / "codes.json").read_text())
    assert (result["z_dim"], result["images"], result["seed"], result["noise"]) == (z_dim, 297, 5, [0] * z_dim)
    assert (run / "codes.csv").exists() == (z_dim == 2)
    state = torch.load(run / "checkpoints" / "model_checkpoint.pt", weights_only=True)["state_dict"]
    model = part2.models.AdversarialAE(z_dim)
    model.load_state_dict(state)
    encoded, labels, _ = part2.evaluation.encode(model.eval(), part2.mnist.digits()[1])
    draws = torch.randn(297, z_dim, generator=torch.Generator().manual_seed(5))
    for name, value in codes.compare(encoded, draws).items():
        assert result[name] == pytest.approx(value, rel=1e-3), name
    if z_dim == 2:
        rows = list(csv.DictReader((run / "codes.csv").read_text().splitlines()))
        assert [int(row["label"]) for row in rows] == labels[:47].tolist()
        assert [float(row["z_2"]) for row in rows] == pytest.approx(encoded[:47, 1].tolist(), abs=6e-4)
    with pytest.raises(part2.run.InputError, match="nowhere"):
        codes.compute(Namespace(checkpoint="nowhere"))

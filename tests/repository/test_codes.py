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


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_dimension(codes, dimension):
    """Whatever space it is turned into, and however it is scaled."""
    flat = torch.rand(3000, dimension) @ torch.randn(dimension, 7) * 11 + 13
    found = codes.intrinsic_dimension(flat.double())
    assert found == pytest.approx(dimension, rel=0.12)


def test_a_line_in_the_plane(codes):
    """Neighbours at 1 and 2 at the ends, 1 and 1 between them: the logarithms of the ratios are log 2, 0, 0, log 2."""
    line = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, 4.0]])
    assert codes.intrinsic_dimension(line) == pytest.approx(2 / math.log(2))


@pytest.mark.parametrize("z_dim", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_command(codes, part2, tmp_path, monkeypatch, z_dim):
    """Against the codes of the test images, from a run of one epoch on the small digits."""
    monkeypatch.setattr(codes, "SHOWN", 47)
    part2.train.main(Namespace(dataset="digits", batch_size=500, z_dim=z_dim, epochs=1, log_dir=str(tmp_path)))
    run = tmp_path / "version_0"
    codes.compute(Namespace(checkpoint=str(run), seed=5))
    result = json.loads((run / "codes.json").read_text())
    assert (result["z_dim"], result["images"], result["seed"]) == (z_dim, 297, 5)
    assert (run / "codes.csv").exists() == (z_dim == 2)
    state = torch.load(run / "checkpoints" / "model_checkpoint.pt", weights_only=True)["state_dict"]
    model = part2.models.AdversarialAE(z_dim)
    model.load_state_dict(state)
    encoded, labels, _ = part2.evaluation.encode(model.eval(), part2.mnist.digits()[1])
    draws = torch.randn(297, z_dim, generator=torch.Generator().manual_seed(5))
    assert result["std"] == pytest.approx(encoded.std(dim=0).tolist(), rel=1e-3)
    assert result["dimension_of_codes"] == pytest.approx(codes.intrinsic_dimension(encoded), rel=1e-3)
    assert result["dimension_of_draws"] == pytest.approx(codes.intrinsic_dimension(draws), rel=1e-3)
    if z_dim == 2:
        rows = list(csv.DictReader((run / "codes.csv").read_text().splitlines()))
        assert [int(row["label"]) for row in rows] == labels[:47].tolist()
        assert [float(row["z_2"]) for row in rows] == pytest.approx(encoded[:47, 1].tolist(), abs=6e-4)
    with pytest.raises(part2.run.InputError, match="nowhere"):
        codes.compute(Namespace(checkpoint="nowhere"))

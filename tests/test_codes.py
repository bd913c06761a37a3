"""`report/codes.py`: how an autoencoder's codes lie among draws from the prior, in cases that are known by hand."""

import csv
import json
import math

import pytest
import torch

from part_loader import load_script

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def codes(part2, repository):
    return load_script(repository / "report" / "codes.py")


def test_nearest_distances_of_a_few_points(codes):
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    others = torch.tensor([[0.0, 1.0], [3.0, 3.0]])
    torch.testing.assert_close(codes.nearest_distances(points, others), torch.tensor([[1.0], [1.0], [1.0]]))
    own = torch.tensor([[2.0, 5.0], [math.sqrt(13), 5.0], [2.0, math.sqrt(13)]])
    torch.testing.assert_close(codes.nearest_distances(points, count=2), own)


def test_no_point_is_its_own_neighbour_in_any_piece(codes):
    """1,301 points on a line, one apart: three pieces of 500."""
    line = torch.arange(1301.0)[:, None]
    assert (codes.nearest_distances(line) == 1).all()


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_the_dimension_of_what_points_lie_on(codes, dimension):
    """Whatever space it is turned into, and however it is scaled."""
    flat = torch.rand(3000, dimension) @ torch.randn(dimension, 7) * 11 + 13
    found = codes.intrinsic_dimension(codes.nearest_distances(flat.double(), count=2))
    assert found == pytest.approx(dimension, rel=0.12)


def test_points_that_coincide_have_no_say(codes):
    nearest = torch.tensor([[0.0, 0.0], [1.0, math.e], [0.0, 3.0], [2.0, 2 * math.e]])
    assert codes.intrinsic_dimension(nearest) == pytest.approx(1)


def test_equal_distributions(codes):
    found = codes.compare(torch.randn(2000, 3), torch.randn(2000, 3))
    assert found["codes_beside_codes"] == pytest.approx(0.5, abs=0.04)
    assert found["draws_beside_draws"] == pytest.approx(0.5, abs=0.04)
    assert found["dimension_of_codes"] == pytest.approx(found["dimension_of_draws"], rel=0.1)


def test_codes_far_from_the_draws(codes):
    """A tight cloud at distance 20."""
    cloud = 0.01 * torch.randn(500, 2) + torch.tensor([20.0, 0.0])
    found = codes.compare(cloud, torch.randn(500, 2))
    assert found["codes_beside_codes"] == found["draws_beside_draws"] == 1
    assert found["std"] == pytest.approx([0.01, 0.01], rel=0.2)


def test_codes_on_a_line_among_draws_from_the_plane(codes):
    """Means, covariances and marginals along the line agree; the neighbours tell."""
    line = torch.randn(3000, 1) * torch.tensor([[1.0, 0.0]])
    found = codes.compare(line, torch.randn(3000, 2))
    assert found["codes_beside_codes"] > 0.9
    assert found["draws_beside_draws"] > 0.8
    assert found["dimension_of_codes"] == pytest.approx(1, rel=0.1)
    assert found["dimension_of_draws"] == pytest.approx(2, rel=0.1)


def test_codes_that_are_not_normal(codes):
    """A circle has the mean and the covariance of the prior, but next to none of its draws."""
    angles = 2 * math.pi * torch.rand(2000)
    found = codes.compare(math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], dim=1), torch.randn(2000, 2))
    assert found["codes_beside_codes"] > 0.8


def test_the_noise_of_each_dimension(codes):
    means = 5 * torch.randn(20_000, 3)
    first, second = (means + torch.tensor([0.0, 0.1, 2.0]) * torch.randn(20_000, 3) for _ in range(2))
    assert codes.noise(first, second) == pytest.approx([0, 0.1, 2], rel=0.03)


def test_the_table(codes):
    text = codes.table(torch.tensor([[1.23449, -0.5], [0.0, 7.0]]), torch.tensor([3, 9]))
    assert text == "z_1,z_2,label\n1.234,-0.500,3\n0.000,7.000,9\n"


@pytest.fixture(scope="module")
def run(aae_run, _parts, tiny_digits):
    """A run, its z_dim, and the 60 test images with their codes and labels."""
    folder, z_dim = aae_run
    with _parts["part2"].imported() as part2, tiny_digits(part2):
        model, _ = part2.run_folder.load_aae(folder / "checkpoints" / "model_checkpoint.pt")
        encoded, labels, _ = part2.evaluation.encode(model, part2.mnist.digits()[1])
        images = part2.mnist.digits()[1].dataset[:][0]
    return folder, z_dim, images, encoded, labels


def test_the_command_writes_into_the_run_directory(codes, part2, tiny_digits, run, capsys, monkeypatch):
    folder, z_dim, images, encoded, labels = run
    monkeypatch.setattr(codes, "SHOWN", 47)
    with tiny_digits(part2):
        assert codes.main(["--checkpoint", str(folder), "--seed", "5"]) == 0
    names = ["codes.csv", "codes.json"] if z_dim == 2 else ["codes.json"]
    assert capsys.readouterr().out.split() == [str(folder / name) for name in names]
    assert (folder / "codes.csv").exists() == (z_dim == 2)
    result = json.loads((folder / "codes.json").read_text())
    draws = torch.randn(60, z_dim, generator=torch.Generator().manual_seed(5))
    for name, value in codes.compare(encoded, draws).items():
        assert result[name] == pytest.approx(value, rel=1e-4), name
    assert result["noise"] == [0] * z_dim  # a deterministic encoder
    pixels = images.flatten(1).double()
    first, second = (pixels[:, None] - pixels).norm(dim=2).sort(dim=1).values[:, 1:3].T
    assert result["dimension_of_images"] == pytest.approx(60 / (second / first).log().sum().item(), rel=1e-4)
    assert (result["z_dim"], result["images"], result["seed"]) == (z_dim, 60, 5)
    if z_dim == 2:
        with open(folder / "codes.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 47
        for row, code, label in zip(rows, encoded.tolist(), labels.tolist(), strict=False):
            assert [float(row["z_1"]), float(row["z_2"])] == pytest.approx(code, abs=6e-4)
            assert int(row["label"]) == label


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--output_dir", "/proc/nowhere"], "cannot write into /proc/nowhere"),
        (["--data_dir", "somewhere"], "the run was trained on the built-in digits: leave the flag out"),
        (["--checkpoint", "nowhere"], "nowhere is no run with a checkpoint"),
    ],
)
def test_what_cannot_be_used(codes, part2, tiny_digits, run, capsys, argv, message):
    with tiny_digits(part2):
        assert codes.main(["--checkpoint", str(run[0]), *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("codes.py: error: ") and message in error and error.count("\n") == 1

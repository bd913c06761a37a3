"""Pictures of part 2: `generate.py`, and the grids that it shares with the training."""

import os
import shutil
import time

import pytest
import torch
from PIL import Image
from scipy.stats import norm
from torch import nn

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(autouse=True)
def _tiny_digits(part2, tiny_digits):
    with tiny_digits(part2):
        yield


def test_draws_what_the_model_allows(part2, aae_run, capsys):
    folder, z_dim = aae_run
    assert part2.generate.main(["--checkpoint", str(folder)]) == 0
    names = ["samples", "reconstructions", "interpolations", *(["manifold"] if z_dim == 2 else [])]
    assert capsys.readouterr().out.split() == [str(folder / "generated" / f"{name}.png") for name in names]
    labels = part2.mnist.digits()[1].dataset.labels
    pairs = min((labels == 3).sum().item(), (labels == 8).sum().item(), 8)
    sizes = {"samples": (8, 8), "reconstructions": (10, 6), "interpolations": (10, pairs), "manifold": (20, 20)}
    for name in names:
        with Image.open(folder / "generated" / f"{name}.png") as image:
            assert image.size == tuple(30 * count + 2 for count in sizes[name])


def test_the_seed_decides_the_samples(part2, aae_run, tmp_path):
    def draw(name, seed):
        argv = ["--checkpoint", str(aae_run[0]), "--pictures", "samples", "--num_samples", "3", "--seed", str(seed)]
        assert part2.generate.main([*argv, "--output_dir", str(tmp_path / name)]) == 0
        return (tmp_path / name / "samples.png").read_bytes()

    assert draw("a", 1) == draw("b", 1) != draw("c", 2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num_samples", "0"], "--num_samples must be a whole number of at least 1"),
        (["--steps", "1"], "--steps must be a whole number of at least 2"),
        (["--digits", "3", "11"], "--digits must be two numbers from 0 to 9"),
        (["--output_dir", "/proc/nowhere"], "cannot write into /proc/nowhere"),
    ],
)
def test_flags_that_make_no_sense(part2, aae_run, capsys, argv, message):
    assert part2.generate.main(["--checkpoint", str(aae_run[0]), *argv]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_no_manifold_of_a_space_that_is_no_plane(part2, aae_run, capsys):
    folder, z_dim = aae_run
    code = part2.generate.main(["--checkpoint", str(folder), "--pictures", "manifold"])
    assert code == (0 if z_dim == 2 else 2)
    assert ("needs a model with z_dim 2" in capsys.readouterr().err) == (z_dim != 2)


def tiles(grid: torch.Tensor) -> torch.Tensor:
    """The pictures of a grid with a frame of 2 pixels, [rows, columns, 28, 28]."""
    rows, columns = ((size - 2) // 30 for size in grid.shape[1:])
    return torch.stack(
        [torch.stack([grid[0, 2 + 30 * r : 30 + 30 * r, 2 + 30 * c : 30 + 30 * c] for c in range(columns)])
         for r in range(rows)]
    )  # fmt: skip


def test_grey_values_are_true(part2):
    """-1 is black, 0 half grey and 1 white, whatever else the grid shows."""
    images = torch.tensor([-1.0, -0.5, 0.0, 1.0]).view(4, 1, 1, 1).expand(4, 1, 28, 28)
    for chosen, expected in (([0, 1, 2, 3], [0, 0.25, 0.5, 1]), ([1, 2], [0.25, 0.5])):
        pictures = tiles(part2.pictures.sample_grid(images[chosen]))
        assert pictures[0, :, 9, 9].tolist() == pytest.approx(expected)


class Shift(nn.Module):
    """Stands for both networks: the code is the picture's level, the decoder draws it 0.5 brighter."""

    device = torch.device("cpu")

    def encoder(self, x):
        return x.mean(dim=(2, 3))

    def forward(self, z):
        return (z.view(-1, 1, 1, 1) + 0.5).expand(-1, 1, 28, 28)

    @property
    def decoder(self):
        return self


@pytest.mark.parametrize(("count", "shape"), [(3, (2, 3)), (10, (2, 10)), (13, (4, 10))])
def test_originals_stand_above_their_reconstructions(part2, count, shape):
    levels = torch.linspace(-1, 0.25, count)
    grid = part2.pictures.reconstruction_grid(Shift(), levels.view(-1, 1, 1, 1).expand(-1, 1, 28, 28))
    pictures = tiles(grid)
    assert pictures.shape[:2] == shape
    grey = pictures[..., 9, 9].unflatten(0, (-1, 2))  # (pairs of rows, 2, columns)
    torch.testing.assert_close(grey[:, 0].flatten()[:count], levels / 2 + 0.5)
    torch.testing.assert_close(grey[:, 1].flatten()[:count], levels / 2 + 0.75)


def test_the_newest_run_is_found_however_deep(part2, aae_run, tmp_path, capsys):
    """Runs of `make demo` have log folders of their own within the usual one."""
    for name in ("old", "demo_2", "demo_1"):
        shutil.copytree(aae_run[0], tmp_path / name / "version_0")
        os.utime(
            tmp_path / name / "version_0" / "checkpoints" / "model_checkpoint.pt",
            (time.time() + 60 * (name == "demo_2"),) * 2,
        )
    argv = ["--log_dir", str(tmp_path), "--pictures", "samples", "--num_samples", "1"]
    assert part2.generate.main(argv) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "demo_2" / "version_0" / "generated" / "samples.png")


@pytest.fixture
def moved(aae_run, tmp_path):
    """Copy of a run that says that it was trained on MNIST, from a folder that is not there."""
    folder = shutil.copytree(aae_run[0], tmp_path / "run", ignore=shutil.ignore_patterns("generated"))
    path = folder / "checkpoints" / "model_checkpoint.pt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["flags"].update(dataset="mnist", data_dir=str(tmp_path / "gone"))
    torch.save(checkpoint, path)
    return folder


def error_of(part2, capsys, *argv: str) -> str:
    """The one line of error of `generate.py`."""
    assert part2.generate.main(list(argv)) == 2
    error = capsys.readouterr().err
    assert error.startswith("generate.py: error: ") and error.count("\n") == 1
    return error


def test_a_data_folder_for_a_run_on_the_digits(part2, aae_run, capsys, tmp_path):
    error = error_of(part2, capsys, "--checkpoint", str(aae_run[0]), "--data_dir", str(tmp_path))
    assert "trained on the built-in digits: leave the flag out" in error


def test_the_run_s_data_folder_is_gone(part2, moved, capsys, tmp_path):
    error = error_of(part2, capsys, "--checkpoint", str(moved))
    assert str(tmp_path / "gone") in error and "with --data_dir" in error
    assert not (moved / "generated").exists() and not (tmp_path / "gone").exists()
    assert part2.generate.main(["--checkpoint", str(moved), "--pictures", "samples"]) == 0, "which need no data"


def test_no_mnist_in_the_data_folder_given(part2, moved, capsys, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    error = error_of(part2, capsys, "--checkpoint", str(moved), "--data_dir", str(tmp_path / "data"))
    assert str(tmp_path / "data" / "MNIST" / "raw") in error and "with --data_dir" in error
    assert "--dataset" not in error, "which generate.py does not have"


def test_interpolation_runs_straight_from_one_digit_to_the_other(part2):
    levels = torch.tensor([-0.9, 0.3, -0.5, -0.1])
    images, labels = levels.view(-1, 1, 1, 1).expand(-1, 1, 28, 28), torch.tensor([3, 8, 3, 8])
    pictures = tiles(part2.pictures.interpolation_grid(Shift(), images, labels, digits=(3, 8), steps=4, rows=2))
    expected = torch.stack([torch.linspace(-0.9, 0.3, 4), torch.linspace(-0.5, -0.1, 4)]) / 2 + 0.75
    torch.testing.assert_close(pictures[..., 9, 9], expected)


class PercentileDecoder(nn.Module):
    """Draws the prior's distribution function at z_1 in the left half of an image, and at z_2 in the right half."""

    device = torch.device("cpu")

    def forward(self, z):
        p = torch.as_tensor(norm.cdf(z.numpy()), dtype=torch.float32) * 2 - 1  # (B, 2)
        return p.repeat_interleave(14, dim=1).view(-1, 1, 1, 28).expand(-1, 1, 28, 28)


def test_the_plane_is_seen_at_the_percentiles_of_the_prior(part2):
    pictures = tiles(part2.pictures.manifold_grid(PercentileDecoder(), grid_size=5))
    expected = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    torch.testing.assert_close(pictures[..., 7, 7], expected.expand(5, 5), atol=1e-4, rtol=0)
    torch.testing.assert_close(pictures[..., 7, 20], expected.view(5, 1).expand(5, 5), atol=1e-4, rtol=0)


def test_one_picture_of_each_digit(part2):
    labels = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 0])
    images = torch.arange(16.0).view(-1, 1, 1, 1)
    chosen = part2.pictures.one_of_each_digit(images, labels)
    assert chosen.flatten().tolist() == [15, 1, 6, 0, 2, 4, 7, 13, 11, 5]

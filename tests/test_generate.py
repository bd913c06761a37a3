"""`generate.py`: pictures from a run's checkpoint."""

import os
import shutil
import time
from argparse import Namespace

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module", params=[2, 3], ids=["z_dim 2", "z_dim 3"])
def run(request, _parts, tmp_path_factory):
    log_dir = tmp_path_factory.mktemp("runs")
    with _parts["part1"].imported() as part1:
        part1.train_pl.train_vae(
            Namespace(
                dataset="digits", batch_size=675, num_filters=4, z_dim=request.param, epochs=1, log_dir=str(log_dir)
            )
        )
    return next((log_dir / "lightning_logs").iterdir()), request.param


def test_draws_what_the_model_allows(part1, run, capsys):
    folder, z_dim = run
    assert part1.generate.main(["--checkpoint", str(folder)]) == 0
    names = ["samples", "reconstructions", "interpolations", *(["manifold"] if z_dim == 2 else [])]
    assert capsys.readouterr().out.split() == [str(folder / "generated" / f"{name}.png") for name in names]
    sizes = {"samples": (8, 8), "reconstructions": (10, 6), "interpolations": (10, 8), "manifold": (20, 20)}
    for name in names:
        with Image.open(folder / "generated" / f"{name}.png") as image:
            assert image.size == tuple(30 * count + 2 for count in sizes[name])


def test_the_seed_decides_the_samples(part1, run, tmp_path):
    def draw(name, seed):
        argv = ["--checkpoint", str(run[0]), "--pictures", "samples", "--num_samples", "3", "--seed", str(seed)]
        assert part1.generate.main([*argv, "--output_dir", str(tmp_path / name)]) == 0
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
def test_flags_that_make_no_sense(part1, run, capsys, argv, message):
    try:
        code = part1.generate.main(["--checkpoint", str(run[0]), *argv])
    except SystemExit as stop:  # of the parser, before PyTorch is imported
        code = stop.code
    errors = capsys.readouterr().err
    assert code == 2 and message in errors
    assert errors.count("\n") == 1


def test_no_manifold_of_a_space_that_is_no_plane(part1, run, capsys):
    folder, z_dim = run
    code = part1.generate.main(["--checkpoint", str(folder), "--pictures", "manifold"])
    assert code == (0 if z_dim == 2 else 2)
    assert ("needs a model with z_dim 2" in capsys.readouterr().err) == (z_dim != 2)


def test_the_newest_run_is_found_however_deep(part1, run, tmp_path, capsys):
    """Runs of `make demo` have log folders of their own within the usual one."""
    for name in ("old", "demo_2", "demo_1"):
        shutil.copytree(run[0], tmp_path / name / "lightning_logs" / "version_0")
        os.utime(
            tmp_path / name / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt",
            (time.time() + 60 * (name == "demo_2"),) * 2,
        )
    argv = ["--log_dir", str(tmp_path), "--pictures", "samples", "--num_samples", "1"]
    assert part1.generate.main(argv) == 0
    assert capsys.readouterr().out.strip() == str(
        tmp_path / "demo_2" / "lightning_logs" / "version_0" / "generated" / "samples.png"
    )


@pytest.fixture
def moved(run, tmp_path):
    """Copy of a run that says that it was trained on MNIST, from a folder that is not there."""
    folder = shutil.copytree(run[0], tmp_path / "run", ignore=shutil.ignore_patterns("generated"))
    path = folder / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["flags"].update(dataset="mnist", data_dir=str(tmp_path / "gone"))
    torch.save(checkpoint, path)
    return folder


def error_of(part1, capsys, *argv: str) -> str:
    """The one line of error of `generate.py`."""
    assert part1.generate.main(list(argv)) == 2
    error = capsys.readouterr().err
    assert error.startswith("generate.py: error: ") and error.count("\n") == 1
    return error


def test_a_data_folder_for_a_run_on_the_digits(part1, run, capsys, tmp_path):
    error = error_of(part1, capsys, "--checkpoint", str(run[0]), "--data_dir", str(tmp_path))
    assert "trained on the built-in digits: leave the flag out" in error


def test_the_run_s_data_folder_is_gone(part1, moved, capsys, tmp_path):
    error = error_of(part1, capsys, "--checkpoint", str(moved))
    assert str(tmp_path / "gone") in error and "with --data_dir" in error
    assert not (moved / "generated").exists() and not (tmp_path / "gone").exists()
    assert part1.generate.main(["--checkpoint", str(moved), "--pictures", "samples"]) == 0, "which need no data"


def test_no_mnist_in_the_data_folder_given(part1, moved, capsys, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    error = error_of(part1, capsys, "--checkpoint", str(moved), "--data_dir", str(tmp_path / "data"))
    assert str(tmp_path / "data" / "MNIST" / "raw") in error and "with --data_dir" in error
    assert "--dataset" not in error, "which generate.py does not have"


def test_interpolation_starts_and_ends_at_the_reconstructions(part1, run):
    model, _ = part1.train_pl.load_vae(run[0] / "checkpoints" / "best.ckpt")
    images, labels = part1.mnist.digits()[2].dataset[:]
    grid = part1.pictures.interpolation_grid(model, images, labels, digits=(3, 8), steps=4, rows=2)
    assert grid.shape == (3, 2 * 30 + 2, 4 * 30 + 2)
    with torch.no_grad():
        for column, digit in ((0, 3), (3, 8)):
            codes, _ = model.encoder(images[labels == digit][:2])
            expected = part1.utils.mean_intensity(model.decoder(codes))
            for row in range(2):
                tile = grid[0, 2 + 30 * row : 30 + 30 * row, 2 + 30 * column : 30 + 30 * column]
                torch.testing.assert_close(tile, expected[row, 0], rtol=1e-4, atol=1e-5)

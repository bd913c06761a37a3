"""The commands that draw from a trained model."""

import shutil

import pytest
import torch
from torchvision.io import decode_png, read_file

PICTURES = {"samples.png", "reconstructions.png", "interpolations.png", "manifold.png"}


@pytest.fixture(params=["part1", "part2"])
def autoencoder(request, runs_of):
    return runs_of(request.param)


def test_pictures_of_a_run(autoencoder):
    result = autoencoder.commands(autoencoder.part, "generate.py", "--checkpoint", autoencoder.whole)
    assert result.code == 0, result.output
    pictures = autoencoder.whole / "generated"
    assert set(result.output.split()) == {str(pictures / name) for name in PICTURES}
    for name in PICTURES:
        picture = decode_png(read_file(str(pictures / name)))
        assert picture.shape[0] == 3 and min(picture.shape[1:]) > 28
    shutil.rmtree(pictures)


def test_the_seed_decides_the_samples(autoencoder, tmp_path):
    """And the newest run is found however deep."""
    grids = []
    for i, seed in enumerate((1, 1, 2)):
        argv = ["--log_dir", autoencoder.folder / "whole", "--pictures", "samples", "--num_samples", 5, "--seed", seed]
        result = autoencoder.commands(autoencoder.part, "generate.py", *argv, "--output_dir", tmp_path / str(i))
        assert result.code == 0, result.output
        grids.append((tmp_path / str(i) / "samples.png").read_bytes())
    assert grids[0] == grids[1] != grids[2]


def test_runs_and_data_that_are_not_there(autoencoder, tmp_path):
    result = autoencoder.commands(autoencoder.part, "generate.py", "--checkpoint", "version_7", "--log_dir", tmp_path)
    assert result.code == 2 and result.output.count("\n") == 1 and "version_7" in result.output
    file = next((autoencoder.whole / "checkpoints").glob("*"))
    content = torch.load(file, weights_only=True)
    content["flags"] |= {"dataset": "mnist", "data_dir": str(tmp_path / "gone")}
    run = tmp_path / "run"
    for checkpoint in (autoencoder.whole / "checkpoints").iterdir():
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        torch.save(content, run / "checkpoints" / checkpoint.name)
    result = autoencoder.commands(autoencoder.part, "generate.py", "--checkpoint", run)
    assert result.code == 2 and result.output.count("\n") == 1 and str(tmp_path / "gone") in result.output


def test_no_manifold_of_a_space_that_is_no_plane(runs_of, tmp_path):
    for part in ("part1", "part2"):
        runs = runs_of(part)
        assert runs.train("space", *runs.flags, "--z_dim", 3, "--epochs", 1).code == 0
        argv = ["--checkpoint", runs.run("space"), "--output_dir", tmp_path]
        result = runs.commands(part, "generate.py", *argv, "--pictures", "manifold")
        assert result.code == 2 and "z_dim 2" in result.output
        assert runs.commands(part, "generate.py", *argv).code == 0
        assert not (tmp_path / "manifold.png").exists()


def gpt(runs_of, *argv):
    runs = runs_of("part3")
    return runs.commands("part3", "generate.py", "--checkpoint", runs.whole, "--n_steps", 9, *argv)


def test_texts_continue_their_prompts(runs_of):
    result = gpt(runs_of, "--prompt", "2 and ", "--prompt", "1 and ", "--num_samples", 2)
    assert result.code == 0, result.output
    assert result.output.count("2 and ") >= 2 and result.output.count("1 and ") >= 2


def test_the_seed_decides_the_texts_and_greedy_has_one(runs_of):
    outputs = [gpt(runs_of, "--prompt", "2", "--num_samples", 3, "--seed", seed).output for seed in (1, 1, 2)]
    assert outputs[0] == outputs[1] != outputs[2]
    greedy = [gpt(runs_of, "--prompt", "2", *argv).output for argv in (["--greedy"], ["--temperature", 0])]
    assert greedy[0] == greedy[1]


def test_a_character_that_the_model_does_not_know(runs_of):
    result = gpt(runs_of, "--prompt", "2", "--prompt", "2 ö")
    assert result.code == 2 and result.output.count("\n") == 1 and "ö" in result.output


def test_an_exported_model_generates_the_same(runs_of, tmp_path):
    runs = runs_of("part3")
    result = runs.commands("part3", "export.py", "--checkpoint", runs.whole, "--output_dir", tmp_path / "model")
    assert result.code == 0, result.output
    argv = ["--prompt", "2 and ", "--greedy", "--n_steps", 9]
    exported = runs.commands("part3", "generate.py", "--checkpoint", tmp_path / "model", *argv)
    assert exported.code == 0 and exported.output == gpt(runs_of, *argv[:3]).output

"""`report/first_steps.py`: the loss before each of the first training steps."""

import json

import pytest
import torch

from part_loader import load_script

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def first_steps(part1, repository):
    return load_script(repository / "report" / "first_steps.py")


def test_losses_are_those_before_each_step(first_steps, part1):
    """The first is that of the untrained model, about log2(16); training on one batch lowers those that follow."""
    batch = (torch.randint(0, 2, (32, 1, 28, 28)) * 15, torch.zeros(32).long())
    torch.manual_seed(1)
    untrained = part1.train_pl.VAE(num_filters=4, z_dim=2, lr=0.01)(batch[0])[2].item()
    torch.manual_seed(1)
    losses = first_steps.first_losses(part1.train_pl.VAE(num_filters=4, z_dim=2, lr=0.01), [batch] * 6)
    assert losses[0] == pytest.approx(untrained) == pytest.approx(4, abs=0.3)
    assert losses == sorted(losses, reverse=True) and losses[-1] < 3.9


def test_the_command(first_steps, mnist_dir, tmp_path, capsys):
    argv = ["--data_dir", str(mnist_dir), "--steps", "2", "--seed", "42", "--output_dir", str(tmp_path)]
    assert first_steps.main(argv) == 0
    result = json.loads((tmp_path / "first_steps.json").read_text())
    committed = json.loads((first_steps.REPOSITORY / "report" / "results" / "first_steps.json").read_text())
    assert result["bpd"] == pytest.approx(committed["bpd"][:2], abs=2e-3), "the same training"
    assert result["command"] == "python report/first_steps.py --steps 2 --seed 42 --data_dir DATA"


def test_what_cannot_be_used(first_steps, capsys):
    assert first_steps.main(["--steps", "0"]) == 2
    assert capsys.readouterr().err == "first_steps.py: error: --steps must be a whole number of at least 1, not 0\n"

"""`report/first_steps.py`: the loss before each of the first training steps."""

import json

import pytest

from part_loader import load_script

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def first_steps(part1, repository):
    return load_script(repository / "report" / "first_steps.py")


def test_the_command(first_steps, mnist_dir, tmp_path, repository):
    argv = ["--data_dir", str(mnist_dir), "--steps", "2", "--seed", "42", "--output_dir", str(tmp_path)]
    first_steps.compute(first_steps.build_parser().parse_args(argv))
    result = json.loads((tmp_path / "first_steps.json").read_text())
    committed = json.loads((repository / "report" / "results" / "first_steps.json").read_text())
    assert result["bpd"] == pytest.approx(committed["bpd"][:2], abs=2e-3), "the same training"

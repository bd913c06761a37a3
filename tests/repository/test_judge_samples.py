"""`report/judge_samples.py`: what a classifier says of samples, in cases that are known by hand."""

import json
import math
import shutil

import pytest
import torch
from torchvision.utils import save_image

from part_loader import load_script

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def module(part2, repository):
    return load_script(repository / "report" / "judge_samples.py")


def judge_of_brightness(images):
    """Logits of images whose mean grey value g is the probability of a 1; the rest is that of a 0."""
    g = images.mean(dim=(1, 2, 3))
    return torch.stack([1 - g, g, *[torch.zeros_like(g)] * 8], dim=1).log()


def uniform(*grey: float) -> torch.Tensor:
    return torch.tensor(grey).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)


def test_a_verdict(module):
    """Four zeros, of which three are sure, and four ones, of which one is: two digits equally often are one bit."""
    images = uniform(0, 0.04, 0.01, 0.06, 0.94, 0.9, 0.96, 0.6)
    found = module.verdict(module.probabilities(judge_of_brightness, images))
    assert (found["images"], found["sure"]) == (8, 0.5)
    assert found["digits"] == [0.5, 0.5] + [0] * 8
    assert found["entropy"] == pytest.approx(1)
    assert module.verdict(module.probabilities(judge_of_brightness, uniform(1.0, 1.0)))["entropy"] == 0


def test_the_samples_of_a_picture(module, part2, tmp_path):
    images = torch.rand(64, 1, 28, 28)
    save_image(part2.pictures.sample_grid(2 * images - 1), tmp_path / "grid.png")
    torch.testing.assert_close(module.images_of(tmp_path / "grid.png"), images, atol=0.5 / 255 + 1e-6, rtol=0)


def test_noise_and_loss_of_a_model(module):
    """Codes of variance 1 + 1/4, of which 1/4 is noise; images of grey value 0 in [-1, 1], decoded to black."""
    means = iter([torch.randn(500, 3)] * 2 + [torch.randn(500, 3)] * 2)
    model = (3, lambda x: next(means) + torch.randn(500, 3) / 2, lambda z: uniform(*[0.0] * len(z)))
    found = module.judge_model(judge_of_brightness, model, uniform(*[0.5] * 1000))
    assert found["noise"] == pytest.approx(math.sqrt(0.25 / 1.25), rel=0.05)
    assert found["recon_loss"] == pytest.approx(1)
    assert (found["images"], found["sure"], found["digits"][0]) == (1000, 1, 1)


def test_the_judge_learns(module, part2):
    train, test = part2.mnist.digits()
    torch.manual_seed(0)
    judge = module.train_judge(train.dataset.images / 2 + 0.5, train.dataset.labels, epochs=8)
    answers = judge(test.dataset.images / 2 + 0.5).argmax(dim=1)
    assert (answers == test.dataset.labels).float().mean() > 0.9


@pytest.mark.parametrize("name", ["part1", "part2"])
def test_the_command(repository, request, fake_mnist, tmp_path, monkeypatch, name):
    """A run's samples, those of its pictures, and the test images, by one judge."""
    part = request.getfixturevalue(name)
    module = load_script(repository / "report" / "judge_samples.py")
    monkeypatch.setattr(module, "train_judge", lambda *_: judge_of_brightness)
    train = part.train_pl.train_vae if name == "part1" else part.train.main
    train(part.args.parse_args(["--dataset", "digits", "--epochs", "1", "--log_dir", str(tmp_path)]))
    run = next(tmp_path.rglob("checkpoints")).parent

    def command(folder) -> dict:
        argv = ["--checkpoint", str(folder), "--data_dir", str(fake_mnist), "--samples", "40"]
        module.compute(module.build_parser().parse_args(argv))
        return json.loads((folder / "samples.json").read_text())

    found = command(run)
    assert found["images"] == found["test_images"]["images"] == 40
    assert 0 <= found["sure"] <= 1 and sum(found["digits"]) == pytest.approx(1) and found["recon_loss"] > 0
    assert (0.01 < found["noise"] < 2) if name == "part1" else (found["noise"] == 0)
    assert found["pictures"]["0"]["images"] == 64
    shutil.rmtree(run / "checkpoints")
    assert command(run)["pictures"] == found["pictures"], "which need no model"
    with pytest.raises(module.InputError, match="neither a checkpoint nor samples"):
        (tmp_path / "empty").mkdir()
        command(tmp_path / "empty")

"""Part 2 on a GPU, without one: devices of tensors."""

from types import SimpleNamespace

import pytest
import torch

from fake_cuda import Copies, EightOfEach, fake_cuda, on_cuda
from part_loader import load_script

ENCODERS = ["deterministic", "gaussian", "universal"]


def loader_on_cuda(part2):
    data = part2.mnist.ImageDataset(torch.zeros(6, 1, 28, 28, dtype=torch.uint8), torch.zeros(6, dtype=torch.long))
    data.to(torch.device("cuda"))
    return torch.utils.data.DataLoader(data, batch_size=3, collate_fn=part2.mnist.identity_collate)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_losses_and_scores_stay_on_the_device(part2, encoder):
    assert part2.train and part2.models and part2.evaluation  # imported with real tensors
    with fake_cuda(), torch.no_grad():
        model, loader = on_cuda(lambda: part2.models.AdversarialAE(2, encoder)), loader_on_cuda(part2)
        x, _ = next(iter(loader))
        recon_x, z = model(x)
        for weight in (0, 0.5, 1):
            assert model.get_loss_autoencoder(x, recon_x, z, weight)[0].is_cuda
        loss, values = model.get_loss_discriminator(z)
        assert loss.is_cuda and all(value.is_cuda for value in values.values())
        assert model.sample(4).is_cuda
        with Copies() as copies:
            x, _ = loader.dataset.__getitems__([0, 3])
            recon_x, z = model(x)
            model.get_loss_autoencoder(x, recon_x, z, 0.5)
            model.get_loss_discriminator(z)
        assert copies.found == ["_to_copy"], "a step copies the indices of its images alone"
        codes, labels, _ = part2.evaluation.encode(model, loader)
        assert not codes.is_cuda and not labels.is_cuda
        assert isinstance(part2.evaluation.distances_to_prior(z)["covariance_error"], float)


def test_an_epoch_stays_on_the_device(part2):
    """All but the backward passes, which fake tensors do not have."""
    assert part2.train and part2.models
    optimizer = SimpleNamespace(zero_grad=lambda set_to_none: None, step=lambda: None)
    written = []
    with fake_cuda(), torch.no_grad():
        model, loader = on_cuda(lambda: part2.models.AdversarialAE(2)), loader_on_cuda(part2)
        board = SimpleNamespace(add_scalar=lambda tag, value, step: written.append((tag, step)))
        loggers = [part2.utils.TensorBoardLogger(board, avg_window=2, name=name) for name in "ab"]
        means = part2.train.train_aae(1, model, loader, *loggers, optimizer, optimizer, 0.9, backward=lambda loss: None)
        x, _ = next(iter(loader))
        values = part2.utils.DeviceValues()
        values.add(model.get_loss_discriminator(model(x)[1])[1])
        assert all(value.is_cuda for pending in values.pending.values() for value in pending)
    assert len(means) == len(written) == 7 and {step for _, step in written} == {2}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_pictures_are_on_the_cpu_wherever_the_images_are(part2, device):
    assert part2.models and part2.pictures and part2.generate
    with fake_cuda(), torch.no_grad():
        model = on_cuda(lambda: part2.models.AdversarialAE(2))
        images = EightOfEach(torch.zeros(8, 1, 28, 28, device=device))
        shown = part2.pictures.one_of_each_digit(images, images)
        assert not part2.pictures.reconstruction_grid(model, shown).is_cuda
        assert not part2.pictures.reconstruction_grid(model, part2.generate.three_of_each_digit(images, images)).is_cuda
        assert not part2.pictures.interpolation_grid(model, images, images, (3, 8)).is_cuda
        assert not part2.pictures.manifold_grid(model.decoder, grid_size=3).is_cuda
        assert not part2.pictures.sample_grid(model.sample(4)).is_cuda


def test_the_report_s_distances_stay_on_the_device(part2, repository):
    codes = load_script(repository / "report" / "codes.py")
    with fake_cuda():
        points, others = torch.zeros(2, 501, 3, device="cuda")
        assert codes.nearest_distances(points, others).is_cuda and codes.nearest_distances(points, count=2).is_cuda

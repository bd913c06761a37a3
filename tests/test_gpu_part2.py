"""Part 2 on a GPU, without one: devices of tensors."""

import pytest
import torch

from fake_cuda import Copies, fake_cuda, on_cuda


@pytest.mark.parametrize("encoder", ["deterministic", "gaussian", "universal"])
def test_all_paths_stay_on_the_device(part2, encoder):
    for name in ("models", "mnist", "evaluation", "pictures", "utils"):
        getattr(part2, name)  # imported with real tensors
    with fake_cuda(), torch.no_grad():
        model = on_cuda(lambda: part2.models.AdversarialAE(2, encoder))
        data = part2.mnist.ImageDataset(torch.zeros(6, 1, 28, 28, dtype=torch.uint8), torch.zeros(6, dtype=torch.long))
        data.to(torch.device("cuda"))
        loader = torch.utils.data.DataLoader(data, batch_size=3, collate_fn=part2.mnist.identity_collate)
        x, labels = next(iter(loader))
        recon_x, z = model(x)
        for weight in (0, 0.5, 1):
            assert model.get_loss_autoencoder(x, recon_x, z, weight)[0].is_cuda
        loss, values = model.get_loss_discriminator(z)
        assert loss.is_cuda and all(value.is_cuda for value in values.values())
        assert model.sample(4).is_cuda
        with Copies() as copies:
            x, _ = data.__getitems__([0, 3])
            recon_x, z = model(x)
            model.get_loss_autoencoder(x, recon_x, z, 0.5)
            model.get_loss_discriminator(z)
        assert copies.found == ["_to_copy"], "a step copies the indices of its images alone"
        codes, labels, _ = part2.evaluation.encode(model, loader)
        assert not codes.is_cuda and not labels.is_cuda
        assert not part2.pictures.reconstruction_grid(model, x).is_cuda
        assert not part2.pictures.manifold_grid(model.decoder, grid_size=3).is_cuda
        assert not part2.pictures.sample_grid(x).is_cuda
        assert isinstance(part2.evaluation.distances_to_prior(z)["covariance_error"], float)
        means = part2.utils.EpochMeans()
        means.add(values, size=3)
        assert all(value.is_cuda for pending in means._values.pending.values() for value in pending)

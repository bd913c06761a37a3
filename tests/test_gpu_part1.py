"""Part 1 on a GPU, without one: devices of tensors, waits, choices."""

import torch

from fake_cuda import fake_cuda, on_cuda


def loader_on_cuda(part1):
    data = part1.mnist.ImageDataset(torch.zeros(6, 1, 28, 28, dtype=torch.uint8), torch.zeros(6, dtype=torch.long))
    data.to(torch.device("cuda"))
    return torch.utils.data.DataLoader(data, batch_size=3, collate_fn=part1.mnist.identity_collate)


def test_all_paths_stay_on_the_device(part1):
    for name in ("train_pl", "mnist", "utils", "evaluation"):
        getattr(part1, name)  # imported with real tensors
    with fake_cuda(), torch.no_grad():
        vae = on_cuda(lambda: part1.train_pl.VAE(num_filters=4, z_dim=2, lr=1e-3))
        loader = loader_on_cuda(part1)
        imgs, labels = next(iter(loader))
        assert imgs.is_cuda and labels.is_cuda
        assert vae.training_step((imgs, labels), 0).is_cuda and vae.validation_step((imgs, labels), 0).is_cuda
        assert vae.train_means.compute().is_cuda
        assert vae.sample(4).is_cuda
        assert not part1.utils.visualize_manifold(vae.decoder, grid_size=3).is_cuda  # a picture
        assert part1.evaluation.log_importance_weights(vae, imgs, 3).is_cuda
        assert isinstance(part1.evaluation.importance_weighted_bound(vae, loader, 2), float)
        assert not any(found.is_cuda for found in part1.evaluation.encode(vae, loader))

"""On a pretended GPU, where an operation on tensors of two devices raises: batches, losses and samples stay there, and
grids for pictures come to the CPU."""

from argparse import Namespace

import pytest
import torch

from course.pretended_gpu import on_gpu, pretended_gpu


@pytest.fixture(autouse=True)
def no_pinned_memory(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)


def images_of_digits(part, images: torch.Tensor):
    """Three images of each digit on the GPU, as a data set of a part; a batch of it; all images and labels."""
    data = part.mnist.ImageDataset(images, torch.arange(30) % 10)
    data.to(torch.device("cuda"))
    return data, data.__getitems__([0, 3, 7]), data[:]


def loader_of_cpu_images(part, data):
    on_cpu = part.mnist.ImageDataset(data.images.cpu(), data.labels.cpu())
    return torch.utils.data.DataLoader(on_cpu, batch_size=15, collate_fn=part.mnist.identity_collate)


def vae(part1):
    assert part1.train_pl
    with pretended_gpu():
        data, batch, (images, labels) = images_of_digits(part1, torch.randint(16, (30, 1, 28, 28)).byte())
        model = on_gpu(part1.train_pl.VAE(num_filters=2, z_dim=2, lr=1e-3))
        loader = loader_of_cpu_images(part1, data)
        pictures, samples, sets = part1.pictures, model.sample(3), [(images, labels), (images.cpu(), labels.cpu())]
        on = [*batch, *model(batch[0]), samples, part1.evaluation.log_importance_weights(model, images, 2)]
        off = [
            pictures.sample_grid(samples),
            part1.utils.visualize_manifold(model.decoder, grid_size=3),
            *part1.evaluation.encode(model, loader),
            *(pictures.reconstruction_grid(model, *pair) for pair in sets),
            *(pictures.interpolation_grid(model, *pair, (3, 8)) for pair in sets),
        ]
    return on, off


def aae(part2, encoder: str):
    assert part2.encoders and part2.pictures and part2.evaluation
    with pretended_gpu():
        data, batch, (images, labels) = images_of_digits(part2, torch.randint(256, (30, 1, 28, 28)).byte())
        model = on_gpu(part2.encoders.build_aae(2, encoder))
        loader = loader_of_cpu_images(part2, data)
        pictures, samples, sets = part2.pictures, model.sample(3), [(images, labels), (images.cpu(), labels.cpu())]
        x, _ = batch
        recon, z = model(x)
        losses = [model.get_loss_autoencoder(x, recon, z, weight) for weight in (0, 0.5, 1)]
        losses.append(model.get_loss_discriminator(z))
        on = [*batch, recon, z, samples, *(loss for loss, _ in losses), *(v for _, p in losses for v in p.values())]
        chosen = pictures.first_of_each_digit(images, labels)
        off = [
            pictures.sample_grid(samples),
            pictures.manifold_grid(model.decoder, grid_size=3),
            *part2.evaluation.encode(model, loader)[:2],
            *(pictures.reconstruction_grid(model, x) for x in (chosen, chosen.cpu())),
            *(pictures.interpolation_grid(model, *pair, (3, 8)) for pair in sets),
        ]
    return on, off


def gpt(part3):
    config = part3.gpt.GPT.get_default_config()
    config.n_layer, config.n_head, config.n_embd, config.vocab_size, config.block_size = 1, 2, 8, 11, 8
    data = part3.dataset.TextDataset(Namespace(), None, 8, text="abcdefghijk" * 3)
    with pretended_gpu():
        data.to(torch.device("cuda"))
        batch = data.__getitems__([0, 3])
        module = on_gpu(part3.train.GPTLightningModule(Namespace(), part3.gpt.GPT(config), data))
        flags = ({}, {"do_sample": True, "top_k": 3}, {"do_sample": True, "top_p": 0.5})
        on = [*batch, *module.loss_and_accuracy(batch),
              *(module.model.generate(batch[0], 9, **f) for f in flags)]  # fmt: skip
    return on, []


CASES = {
    "part1": vae,
    "part2": lambda part: aae(part, "deterministic"),
    "part2-gaussian": lambda part: aae(part, "gaussian"),
    "part2-universal": lambda part: aae(part, "universal"),
    "part3": gpt,
}


@pytest.mark.parametrize("case", CASES)
def test_devices(request, case):
    on, off = CASES[case](request.getfixturevalue(case[:5]))
    with pretended_gpu():
        assert [tensor.is_cuda for tensor in on] == [True] * len(on)
        assert [tensor.is_cuda for tensor in off] == [False] * len(off)

"""Part 1 on a GPU, without one: devices of tensors, waits, choices."""

from argparse import Namespace

import pytest
import torch

from fake_cuda import Copies, EightOfEach, fake_cuda, on_cuda
from part_loader import load_script


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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_pictures_of_test_images_wherever_these_are(part1, device):
    assert part1.train_pl and part1.training_run and part1.pictures  # imported with real tensors
    with fake_cuda(), torch.no_grad():
        vae = on_cuda(lambda: part1.train_pl.VAE(num_filters=4, z_dim=2, lr=1e-3))
        images = EightOfEach(torch.zeros(8, 1, 28, 28, dtype=torch.long, device=device))
        assert not part1.pictures.reconstruction_grid(vae, images, images).is_cuda
        assert not part1.pictures.interpolation_grid(vae, images, images, (3, 8)).is_cuda
        assert not part1.pictures.sample_grid(vae.sample(4)).is_cuda


def test_codes_are_written_from_the_cpu(part1, tmp_path):
    assert part1.train_pl and part1.training_run
    seen = []
    board = Namespace(add_embedding=lambda codes, labels, images, **place: seen.extend([codes.device, images.device]))
    with fake_cuda():
        vae, loader = on_cuda(lambda: part1.train_pl.VAE(num_filters=4, z_dim=2, lr=1e-3)), loader_on_cuda(part1)
        part1.training_run.write_codes(tmp_path, board, 1, *part1.evaluation.encode(vae, loader), loader)
    assert seen == [torch.device("cpu")] * 2


def test_the_moving_average_stays_on_the_device(part1):
    """Its first step, further ones, and the exchange for the validation."""
    assert part1.train_pl and part1.callbacks
    with fake_cuda():
        vae, average = (on_cuda(lambda: part1.train_pl.VAE(num_filters=4, z_dim=2, lr=1e-3)) for _ in range(2))
        callback = part1.callbacks.MovingAverage(0.9, device="cuda")
        callback._average_model = Namespace(module=average, n_averaged=torch.zeros((), device="cuda"))
        with Copies() as copies:
            callback.on_train_start(None, vae)
            for step in (1, 2):
                callback.on_train_batch_end(Namespace(global_step=step), vae, None, None, 0)
            callback.on_validation_epoch_start(None, vae)
        assert not copies.found and all(weight.is_cuda for weight in average.parameters())


def test_the_report_s_estimates_stay_on_the_device(part1, repository):
    assert part1.train_pl and part1.evaluation
    likelihood = load_script(repository / "report" / "likelihood.py")
    with fake_cuda(), torch.no_grad():
        vae = on_cuda(lambda: part1.train_pl.VAE(num_filters=4, z_dim=2, lr=1e-3))
        images = torch.zeros(2, 1, 28, 28, dtype=torch.long, device="cuda")
        assert likelihood.from_prior(vae, images, (1, 3)).is_cuda
        assert likelihood.from_encoder(vae, images, (1, 3)).is_cuda
        assert len(likelihood.gaps(vae, images, reach=0.5, spacing=0.25)) == 2
        assert likelihood.sample_and_mean(vae.decoder, torch.zeros(5, 2, device="cuda")).is_cuda


def test_a_step_copies_the_indices_of_its_images_alone(part1):
    assert part1.train_pl and part1.mnist
    with fake_cuda(), torch.no_grad():
        vae = on_cuda(lambda: part1.train_pl.VAE(num_filters=4, z_dim=2, lr=1e-3))
        data = loader_on_cuda(part1).dataset
        with Copies() as copies:
            vae.training_step(data.__getitems__([0, 3]), 0)
    assert copies.found == ["_to_copy"]


def test_losses_are_checked_on_the_device(part1):
    stop = part1.callbacks.StopAtNonFiniteLoss()
    seen = []
    with fake_cuda():
        strategy = Namespace(reduce=lambda value, reduce_op: seen.append(value.device.type) or value)
        stop._first_bad(Namespace(strategy=strategy), [torch.zeros((), device="cuda") for _ in range(3)])
    assert seen == ["cuda"]


@pytest.mark.parametrize("backend", ["cuda", None])
def test_the_moving_average_is_kept_where_the_weights_will_be(part1, tmp_path, monkeypatch, backend):
    monkeypatch.setattr(part1.training_run, "gpu_backend", lambda accelerator: backend)
    settings = part1.inputs.resolve_settings(Namespace(ema=0.9, log_dir=str(tmp_path)), None)
    average = part1.training_run.make_trainer(settings)[0].callbacks[0]
    assert average._device == (backend and torch.device(backend))


@pytest.mark.parametrize(
    ("flags", "pinned", "moved"),
    [
        ({}, False, True),
        ({"num_workers": 2}, True, False),
        ({"devices": 2}, True, False),
        ({"accelerator": "cpu"}, False, False),
    ],
)
def test_data_are_kept_on_the_gpu_or_pinned(part1, monkeypatch, flags, pinned, moved):
    """By one process without workers on one GPU, they are kept there; else they are copied from page-locked memory."""
    settings = {"dataset": "digits", "batch_size": 9, "num_workers": 0, "seed": 1, "devices": 1, "saved": None}
    kept = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(part1.training_run, "keep_on_gpu", lambda data, device, workers: kept.append(len(data)))
    loaders = part1.training_run.make_loaders(Namespace(**{**settings, "accelerator": "auto", **flags}))
    assert [loader.pin_memory for loader in loaders] == [pinned] * 3
    assert kept == ([1500, 297] if moved else [])


@pytest.mark.parametrize(
    ("device", "workers", "free", "moved"),
    [("cuda", 0, 401, True), ("cuda", 0, 399, False), ("cuda", 1, 401, False), ("cpu", 0, 401, False)],
)
def test_a_data_set_moves_if_it_takes_a_quarter_of_the_memory(part1, monkeypatch, device, workers, free, moved):
    moves = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1000))
    data = Namespace(nbytes=100, device=torch.device("cpu"), to=moves.append)
    assert part1.gpu.keep_on_gpu(data, torch.device(device), workers) is moved
    assert moves == [torch.device("cuda")] * moved


def test_a_data_set_stays_on_the_gpu_when_memory_is_short_later(part1, monkeypatch):
    """Part 3 asks before each round. A loader that was told "no" would pin its batches, which fails on a GPU."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 1000))
    assert part1.gpu.keep_on_gpu(Namespace(nbytes=100, device=torch.device("cuda:0"), to=None), torch.device("cuda"), 0)


@pytest.mark.parametrize("deterministic", [False, True])
def test_speed_or_reproducibility(part1, monkeypatch, deterministic):
    cudnn, matmul, asked = torch.backends.cudnn, torch.backends.cuda.matmul, []
    names = [(cudnn, name) for name in ("deterministic", "benchmark", "allow_tf32")] + [(matmul, "allow_tf32")]
    before = [getattr(owner, name) for owner, name in names]
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the user's own stays
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    try:
        part1.gpu.configure_gpu(deterministic)
        found = [getattr(owner, name) for owner, name in names]
        assert found == [deterministic, not deterministic, not deterministic, not deterministic]
        assert asked == [deterministic]
    finally:
        for (owner, name), value in zip(names, before, strict=True):
            setattr(owner, name, value)


def test_graphs_are_for_cuda(part1):
    assert part1.gpu.compile_options("cuda")["mode"] == "reduce-overhead"
    assert part1.gpu.compile_options("mps") == part1.gpu.compile_options(None) == {}

"""Posteriors of part 2 beyond the assignment's: `--encoder gaussian` and `--encoder universal`."""

from argparse import Namespace

import pytest
import torch
from scipy import stats
from torch import nn

from runs import assert_equal

NOISY = ["gaussian", "universal"]


@pytest.fixture(autouse=True)
def _tiny_digits(part2, tiny_digits):
    with tiny_digits(part2):
        yield


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28) * 2 - 1


def flags(log_dir, **changes) -> Namespace:
    """One epoch of two steps."""
    values = {"dataset": "digits", "batch_size": 60, "z_dim": 2, "epochs": 1, "seed": 3, "lambda_": 0.9}
    return Namespace(**{**values, "log_dir": log_dir, **changes})


def with_constant_posterior(encoder, mean: float, log_std: float):
    """The encoder, which from now on gives every image the same posterior."""
    last = encoder.net[-1]
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([mean, log_std]).repeat_interleave(len(last.bias) // 2))
    return encoder


def without_noise(part2, encoder: nn.Module, z_dim: int) -> nn.Module:
    """The deterministic encoder that an encoder becomes where its noise is turned off, which is done here."""
    deterministic = part2.models.ConvEncoder(z_dim)
    weights = encoder.state_dict()
    with torch.no_grad():
        if isinstance(encoder, part2.models.GaussianEncoder):
            encoder.net[-1].weight[z_dim:] = 0
            encoder.net[-1].bias[z_dim:] = -torch.inf  # the log of a std of 0
            weights |= {name: weights[name][:z_dim] for name in ("net.11.weight", "net.11.bias")}
        else:
            encoder.net[0].weight[:, 1] = 0
            weights["net.0.weight"] = weights["net.0.weight"][:, :1]
    deterministic.load_state_dict(weights)
    return deterministic


@pytest.mark.parametrize("kind", NOISY)
@pytest.mark.parametrize(("batch_size", "z_dim"), [(1, 2), (11, 7)])
def test_shapes(part2, kind, batch_size, z_dim):
    model = part2.models.AdversarialAE(z_dim, encoder=kind)
    recon, z = model(images(batch_size))
    assert z.shape == (batch_size, z_dim) and recon.shape == (batch_size, 1, 28, 28)
    assert model.encoder.device == torch.device("cpu")


@pytest.mark.parametrize("kind", NOISY)
def test_every_image_and_every_call_has_its_own_noise(part2, kind):
    encoder = part2.models.AdversarialAE(5, encoder=kind).encoder
    same = images(1).expand(3, -1, -1, -1)
    first, second = encoder(same), encoder(same)
    for a, b in ((first[0], first[1]), (first[1], first[2]), (first[0], second[0])):
        assert not torch.allclose(a, b)
    assert len(first[0].unique()) == 5, "and every dimension"


@pytest.mark.parametrize("kind", NOISY)
def test_without_noise_it_is_the_deterministic_encoder(part2, kind):
    encoder = part2.models.AdversarialAE(3, encoder=kind).encoder
    deterministic = without_noise(part2, encoder, z_dim=3)
    x = images(7)
    torch.testing.assert_close(encoder(x), deterministic(x))


def test_gaussian_draws_have_the_mean_and_the_std_of_the_posterior(part2):
    encoder = with_constant_posterior(part2.models.GaussianEncoder(3), mean=5.0, log_std=-1.0)
    mean, log_std = encoder.posterior(images(2))
    assert mean.shape == log_std.shape == (2, 3)
    assert (mean == 5).all() and (log_std == -1).all()
    z = encoder(images(1000)).detach()
    for column in z.T:
        assert stats.kstest(column.numpy(), "norm", args=(5.0, torch.tensor(-1.0).exp().item())).pvalue > 1e-3
    assert torch.corrcoef(z.T)[0, 1].abs() < 0.15


def test_gradients_reach_mean_and_log_std(part2):
    """z = mean + std * eps: the sum of all codes has the gradients 1 and std * eps = z - mean."""
    encoder = with_constant_posterior(part2.models.GaussianEncoder(3), mean=5.0, log_std=-1.0)
    z = encoder(images(11))
    z.sum().backward()
    bias = encoder.net[-1].bias.grad
    torch.testing.assert_close(bias[:3], torch.full((3,), 11.0))
    torch.testing.assert_close(bias[3:], (z.detach() - 5).sum(dim=0))


def test_the_universal_posterior_need_not_be_normal(part2):
    """With a network set by hand, a code is the ramp of the noise at one pixel, scaled: half of all draws are 0."""
    encoder = part2.models.UniversalEncoder(1)
    for parameter in encoder.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        encoder.net[0].weight[0, 1, 1, 1] = 100.0  # GELU is a ramp at this scale
        for layer in (2, 4, 6, 8):
            encoder.net[layer].weight[0, 0, 1, 1] = 1.0
        encoder.net[11].weight[0, 0] = 0.01
    z = encoder(images(1500)).detach().flatten()
    assert z.min() > -1e-3
    assert (z < 1e-2).float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert z.mean().item() == pytest.approx(0.3989, abs=0.06)  # of max(0, N(0, 1)): 1 / sqrt(2 pi)


@pytest.mark.parametrize("kind", NOISY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_number_formats(part2, kind, dtype):
    model = part2.models.AdversarialAE(3, encoder=kind).to(dtype)
    recon, z = model(torch.zeros(2, 1, 28, 28))
    assert recon.dtype == z.dtype == dtype


@pytest.mark.parametrize("kind", NOISY)
def test_noise_is_made_on_the_device_of_the_images(part2, kind):
    """The meta device has shapes and no values; tensors of the CPU cannot be combined with its own."""
    model = part2.models.AdversarialAE(3, encoder=kind).to("meta")
    recon, z = model(torch.zeros(2, 1, 28, 28, device="meta"))
    assert recon.device == z.device == torch.device("meta")


def test_the_default_is_the_course_s_encoder(part2):
    model = part2.models.AdversarialAE()
    assert type(model.encoder) is part2.models.ConvEncoder
    assert tuple(part2.models.ENCODERS) == part2.inputs.ENCODERS
    assert part2.inputs.build_parser().parse_args([]).encoder == "deterministic"
    with pytest.raises(ValueError, match="encoder must be one of deterministic, gaussian, universal, not noisy"):
        part2.models.AdversarialAE(encoder="noisy")


@pytest.mark.parametrize("kind", NOISY)
def test_evaluation_draws_the_same_codes_each_time(part2, kind, tmp_path):
    """One for each image, and the training's random state stays."""
    model = part2.models.AdversarialAE(3, encoder=kind)
    loader = part2.mnist.digits()[1]
    state, found = torch.get_rng_state(), []
    for _ in range(2):
        with part2.evaluation.evaluating(model):
            found.append(part2.evaluation.encode(model, loader))
    assert_equal(found[0], found[1])
    assert torch.equal(torch.get_rng_state(), state)
    board = Namespace(log_dir=str(tmp_path), add_image=lambda tag, grid, global_step: None)
    for epoch in (1, 2):
        torch.rand(epoch)
        part2.train.save_reconstruction(model, epoch, board, images(4) * 0)
    first, second = ((tmp_path / f"results/Reconstruction/reconstruction_{n}.png").read_bytes() for n in (1, 2))
    assert first == second


def test_a_run_keeps_its_encoder(part2, tmp_path):
    """In its checkpoint, where it is resumed (to the same weights as without an interruption), and in `generate.py`."""
    main, inputs, kind = part2.train.main, part2.inputs, "universal"
    main(flags(tmp_path / "whole", encoder=kind, epochs=2))
    main(flags(tmp_path / "parts", encoder=kind))
    run = tmp_path / "parts" / "version_0"
    with pytest.raises(inputs.InputError, match=f"--encoder deterministic was given.*started with --encoder {kind}"):
        main(inputs.parse_args(["--resume", str(run), "--epochs", "2", "--encoder", "deterministic"]))
    main(inputs.parse_args(["--resume", str(run), "--epochs", "2"]))
    whole, parts = (part2.run_folder.read_checkpoint(tmp_path / name / "version_0" / inputs.CHECKPOINT)
                    for name in ("whole", "parts"))  # fmt: skip
    assert whole["hyper_parameters"] == parts["hyper_parameters"] == {"z_dim": 2, "encoder": kind}
    assert_equal(whole["state_dict"], parts["state_dict"])
    assert whole["rows"] == parts["rows"]

    assert type(part2.run_folder.load_aae(run / inputs.CHECKPOINT)[0].encoder) is part2.models.ENCODERS[kind]
    for pictures in (["reconstructions"], ["samples", "interpolations", "reconstructions"]):
        argv = ["--checkpoint", str(run), "--output_dir", str(tmp_path / str(len(pictures))), "--pictures", *pictures]
        assert part2.generate.main(argv) == 0
    alone, beside = ((tmp_path / name / "reconstructions.png").read_bytes() for name in ("1", "3"))
    assert alone == beside, "a picture does not depend on the others"


def test_a_checkpoint_from_before_there_was_a_choice(part2, tmp_path):
    """Has the deterministic encoder."""
    part2.train.main(flags(tmp_path))
    path = tmp_path / "version_0" / part2.inputs.CHECKPOINT
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["hyper_parameters"]["encoder"], checkpoint["flags"]["encoder"]
    torch.save(checkpoint, path)
    assert type(part2.run_folder.load_aae(path)[0].encoder) is part2.models.ConvEncoder
    part2.train.main(part2.inputs.parse_args(["--resume", str(tmp_path / "version_0"), "--epochs", "2"]))
    assert part2.run_folder.read_checkpoint(path)["hyper_parameters"] == {"z_dim": 2, "encoder": "deterministic"}

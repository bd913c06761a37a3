"""One epoch of the game: who moves in which step, what is logged, and what is read from the device when."""

import copy

import pytest
import torch
from torch import nn


class Writer:
    def __init__(self):
        self.written = []

    def add_scalar(self, tag, value, global_step=None, **kwargs):
        self.written.append((tag, float(value), global_step))


class Watching(torch.optim.SGD):
    """Notes which parameters of a model its steps change."""

    def __init__(self, model: nn.Module, parameters, lr: float):
        super().__init__(parameters, lr=lr)
        self.model, self.changed, self.steps = model, set(), 0

    def step(self, closure=None):
        before = {name: parameter.clone() for name, parameter in self.model.named_parameters()}
        super().step()
        self.steps += 1
        self.changed |= {name for name, p in self.model.named_parameters() if not torch.equal(p, before[name])}


def batches(count: int = 2, size: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(count, size, 1, 28, 28, generator=generator) * 2 - 1
    return [(x, torch.zeros(size, dtype=torch.long)) for x in images]


@pytest.fixture
def game(part2):
    """A function that plays one epoch and returns both optimizers and writers."""

    def play(model, data, lambda_, ae_lr=0.1, d_lr=0.1, window=2):
        writers = Writer(), Writer()
        loggers = [
            part2.utils.TensorBoardLogger(writer, avg_window=window, name=name)
            for writer, name in zip(writers, ("generator", "discriminator"), strict=True)
        ]
        autoencoder = [*model.encoder.parameters(), *model.decoder.parameters()]
        optimizers = (
            Watching(model, autoencoder, ae_lr),
            Watching(model, model.discriminator.parameters(), d_lr),
        )
        result = part2.train.train_aae(1, model, data, *loggers, *optimizers, lambda_)
        return optimizers, writers, result

    return play


@pytest.fixture
def model(part2):
    return part2.models.AdversarialAE(z_dim=3)


def names_of(model, *networks: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.split(".")[0] in networks}


@pytest.mark.parametrize("lambda_", [0.5, 1])
def test_each_step_moves_its_own_player(model, game, lambda_):
    (optimizer_ae, optimizer_disc), _, _ = game(model, batches(3), lambda_)
    assert optimizer_ae.steps == optimizer_disc.steps == 3
    assert optimizer_ae.changed == names_of(model, "encoder", "decoder")
    assert optimizer_disc.changed == names_of(model, "discriminator")


def test_lambda_zero_leaves_the_decoder(model, game):
    (optimizer_ae, _), _, _ = game(model, batches(), lambda_=0)
    assert optimizer_ae.changed == names_of(model, "encoder")


def test_lambda_one_ignores_the_discriminator(part2, game):
    """With λ = 1 encoder and decoder become the same beside any discriminator, which trains on."""
    states = []
    for d_lr in (0.0, 10.0):
        torch.manual_seed(1)
        model = part2.models.AdversarialAE(z_dim=3)
        (_, optimizer_disc), _, _ = game(model, batches(), lambda_=1, d_lr=d_lr)
        assert bool(optimizer_disc.changed) == (d_lr > 0)
        states.append({name: value for name, value in model.state_dict().items() if "discriminator" not in name})
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name])


def test_two_steps_by_hand(part2, game):
    """Two steps of plain SGD with λ = 1, by hand."""
    torch.manual_seed(1)
    model = part2.models.AdversarialAE(z_dim=3)
    by_hand, data = copy.deepcopy(model), batches(2)
    for x, _ in data:
        by_hand.zero_grad()
        nn.functional.mse_loss(by_hand(x)[0], x).backward()
        with torch.no_grad():
            for parameter in (*by_hand.encoder.parameters(), *by_hand.decoder.parameters()):
                parameter -= 0.1 * parameter.grad
    game(model, data, lambda_=1)
    found, expected = (dict(network.named_parameters()) for network in (model, by_hand))
    for name in names_of(model, "encoder", "decoder"):
        torch.testing.assert_close(found[name], expected[name])


def test_generator_gradients_are_dropped(part2, game):
    """From the same codes and draws, it becomes the same whether or not the generator plays."""
    states = []
    for lambda_ in (0.5, 1):
        torch.manual_seed(1)
        model = part2.models.AdversarialAE(z_dim=3)
        game(model, batches(3), lambda_, ae_lr=0.0)
        states.append(model.discriminator.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name])


def test_tags(model, game):
    _, (writer_ae, writer_disc), _ = game(model, batches(2), lambda_=0.5)
    tags = {tag for tag, _, _ in writer_ae.written}
    assert {"generator/gen_loss", "generator/recon_loss", "generator/ae_loss"} <= tags
    tags = {tag for tag, _, _ in writer_disc.written}
    assert {f"discriminator/{name}" for name in ("disc_loss", "loss_real", "loss_fake", "accuracy")} <= tags


def test_returns_means_over_the_images(model, game):
    """Batches of 6 and 2 images: without steps the mean reconstruction loss is that of all 8 images together."""
    data = [batches(1, 6)[0], batches(1, 2)[0]]
    _, _, means = game(model, data, lambda_=0.5, ae_lr=0.0, d_lr=0.0)
    x = torch.cat([x for x, _ in data])
    assert means["recon_loss"] == pytest.approx(nn.functional.mse_loss(model(x)[0], x).item(), rel=1e-5)
    assert means["ae_loss"] == pytest.approx(0.5 * means["recon_loss"] + 0.5 * means["gen_loss"], rel=1e-5)
    assert means["disc_loss"] == pytest.approx((means["loss_real"] + means["loss_fake"]) / 2, rel=1e-5)


def test_few_reads_from_the_device(part2, model, game, monkeypatch):
    """Seven steps, windows of three: two means of seven losses, two checks of them, and the means of the epoch."""
    reads = []
    for method in ("item", "tolist", "cpu", "numpy", "__float__", "__bool__"):
        original = getattr(torch.Tensor, method)
        monkeypatch.setattr(
            torch.Tensor, method, lambda self, *a, o=original, m=method, **kw: reads.append(m) or o(self, *a, **kw)
        )
    monkeypatch.setattr(part2.train, "CHECK_EVERY_N_STEPS", 3)
    monkeypatch.setattr(Watching, "step", torch.optim.SGD.step)
    game(model, batches(7, 2), lambda_=0.5, window=3)
    assert sorted(reads) == ["__float__"] * 14 + ["cpu"] + ["item"] * 14 + ["tolist"]


def test_loss_that_is_not_finite(part2, model, game, monkeypatch):
    monkeypatch.setattr(part2.train, "CHECK_EVERY_N_STEPS", 2)
    data = batches(7, 2)
    data[4][0].fill_(torch.nan)
    with pytest.raises(part2.run.InputError, match="_loss is not finite in epoch 1, step 6 of the epoch"):
        game(model, data, lambda_=0.5)


@pytest.mark.parametrize("name", ["Prior_samples/samples_epoch_7.png", "Reconstruction/reconstruction_7.png"])
def test_pictures_do_not_disturb_training(part2, model, tmp_path, name):
    """Random numbers and the mode of the model stay as they were."""

    class Board:
        log_dir = str(tmp_path)

        def add_image(self, tag, grid, global_step):
            self.added = tag, global_step

    board = Board()
    model.train()
    state = torch.get_rng_state()
    if "samples" in name:
        part2.train.generate_and_save(model, 7, board, batch_size=3)
    else:
        part2.train.save_reconstruction(model, 7, board, batches(1, 4)[0][0])
    assert (tmp_path / "results" / name).exists()
    assert board.added == ("samples" if "samples" in name else "reconstructions", 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training

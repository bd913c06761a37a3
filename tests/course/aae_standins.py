"""Right inner parts for the criteria of part 2, so that a wrong function costs points once, not in all that use it.

The networks here answer what handed-out code and common solutions ask of theirs: any constructor arguments, `z_dim`,
`device`, `net`, `linear`, parameters.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.criterion import NotANumber, expect

Z = 3  # latent dimensions where a criterion is free to choose
FAKE = 1000.0  # first number of the codes that stand for the encoder's, so that a discriminator can tell them apart


class _Layer(nn.Linear):
    """A linear layer that also answers as a Sequential that begins with one."""

    def __getitem__(self, index: int) -> nn.Linear:
        return self


class _Network(nn.Module):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        numbers = [arg for arg in args if isinstance(arg, int)]
        self.z_dim = kwargs.get("z_dim", numbers[-1] if numbers else Z)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class Encoder(_Network):
    """Images [B, 1, 28, 28] to codes [B, z_dim]."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.net, self.linear = nn.Sequential(nn.Flatten()), _Layer(784, self.z_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.net(x))


class Decoder(_Network):
    """Codes to images in [-1, 1]; remembers the codes."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.linear, self.net = _Layer(self.z_dim, 784), nn.Sequential(nn.Tanh())
        self.seen: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        self.seen.append(z.detach())
        return self.net(self.linear(z)).reshape(-1, 1, 28, 28)


class Discriminator(_Network):
    """Codes to logits [B, 1]."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.linear, self.net = _Layer(self.z_dim, 5), nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(5, 1))

    def forward(self, z: Tensor) -> Tensor:
        return self.net(self.linear(z))


class Judge(_Network):
    """A discriminator set by hand: one logit for codes that begin with `FAKE`, another for all others.

    Args:
        real, fake: the logits.
        probabilities: return their sigmoid instead.
    """

    def __init__(self, real: float, fake: float, probabilities: bool = False):
        super().__init__(Z)
        self.real, self.fake = nn.Parameter(torch.tensor(real)), nn.Parameter(torch.tensor(fake))
        self.linear = self.net = _Layer(Z, 1)
        self.probabilities, self.seen = probabilities, []

    def forward(self, z: Tensor) -> Tensor:
        self.seen.append(z.detach())
        logit = torch.where(z[..., :1] > FAKE / 2, self.fake, self.real)
        logit = logit + (z - z.detach()).sum(dim=-1, keepdim=True)  # adds 0, with a gradient for the codes
        return logit.sigmoid() if self.probabilities else logit


def codes(batch: int = 6) -> Tensor:
    """Codes that a Judge takes for the encoder's."""
    z = torch.linspace(-1, 1, batch * Z).reshape(batch, Z).clone()
    z[:, 0] += FAKE
    return z


@contextmanager
def standing_in(part) -> Iterator[None]:
    """While this holds, the student's `AdversarialAE` is built of the networks above."""
    networks = {"ConvEncoder": Encoder, "ConvDecoder": Decoder, "Discriminator": Discriminator}
    with patch.multiple(part.models, create=True, **networks):
        yield


def new_model(part, base: type | None = None) -> nn.Module:
    """The student's AdversarialAE with the networks above inside."""
    kind = base or part.models.AdversarialAE
    with standing_in(part), torch.random.fork_rng(devices=[]):  # the same weights at each call
        torch.manual_seed(0)
        try:
            model = kind(z_dim=Z)
        except Exception:  # a constructor that fails has criteria of its own
            model = kind.__new__(kind)
            nn.Module.__init__(model)
            model.z_dim = Z
        model.encoder, model.decoder, model.discriminator = Encoder(Z), Decoder(Z), Discriminator(Z)
    return model


def gives_probabilities(part) -> bool:
    """Whether the student's discriminator has a sigmoid at its end. Its own criterion says that this is wrong; a loss
    that fits to it is right."""
    try:
        with torch.no_grad():
            judged = part.models.Discriminator(Z)(100 * torch.randn(64, Z))
        return bool(((judged >= 0) & (judged <= 1)).all())
    except Exception:
        return False


def on_logits(part, check: Callable[[bool], None]) -> None:
    """Check losses with a discriminator that gives logits; where it fails and the student's own one gives
    probabilities, with one that does."""
    try:
        check(False)
    except Exception as first:
        if not gives_probabilities(part):
            raise
        try:
            check(True)
        except Exception:
            raise first from None


def number(value: Any) -> float:
    """A logged value as a number: a tensor with one element, with or without a graph, or a number. Raises
    NotANumber."""
    found = float(value.detach()) if isinstance(value, Tensor) else float(value)
    if found != found:
        raise NotANumber("a loss is NaN")
    return found


def close(a: float, b: float, tolerance: float = 1e-3) -> bool:
    return abs(a - b) <= tolerance * max(1.0, abs(b))


def autoencoder_losses(
    part, logit: float = 0.0, delta: float = 0.0, lambda_: float = 0.5, probabilities: bool = False, batch: int = 6
) -> SimpleNamespace:
    """The student's `get_loss_autoencoder` where the discriminator gives all codes this logit, and every pixel is off
    by `delta`: `total`, `recon`, `gen`, and `logged`, its dictionary. A loss that is not logged, or logged with its
    weight in it, is measured by λ; where the two are logged under each other's names, `exchanged` says so."""
    model = new_model(part)
    model.discriminator = Judge(0.0, logit, probabilities)
    x = torch.linspace(-1, 0, batch * 784).reshape(batch, 1, 28, 28).clone()

    def losses(weight: float, delta: float = delta) -> tuple[float, dict]:
        loss, logged, *_ = model.get_loss_autoencoder(x, x + delta, codes(batch), weight)
        return number(loss), logged

    total, logged = losses(lambda_)
    alone = losses(1.0)[0], losses(0.0)[0]  # reconstruction, generator
    recon, gen = (number(logged.get(name, one)) for name, one in zip(("recon_loss", "gen_loss"), alone, strict=True))
    if close(recon, lambda_ * alone[0]) and close(gen, (1 - lambda_) * alone[1]):
        recon, gen = alone
    farther = losses(lambda_, delta + 1)[1]
    moved = [
        name for name in ("recon_loss", "gen_loss") if name in logged and number(farther[name]) > number(logged[name])
    ]
    if moved == ["gen_loss"]:
        recon, gen = gen, recon
    return SimpleNamespace(total=total, recon=recon, gen=gen, logged=logged, exchanged=moved == ["gen_loss"])


def discriminator_losses(part, real: float, fake: float, probabilities: bool = False) -> SimpleNamespace:
    """The student's `get_loss_discriminator` where the discriminator gives these two logits: `total`, `logged`, and
    `draws`, the tensors other than codes that it was asked about."""
    model = new_model(part)
    model.discriminator = Judge(real, fake, probabilities)
    loss, logged, *_ = model.get_loss_discriminator(codes())
    return SimpleNamespace(total=number(loss), logged=logged)


def has_swapped_roles(part, probabilities: bool) -> bool:
    """Whether the discriminator's loss calls the prior fake and codes real throughout."""

    def total(real: float, fake: float) -> float:
        return discriminator_losses(part, real, fake, probabilities).total

    return total(2.0, 0.0) > total(-2.0, 0.0) + 1e-4 and total(0.0, 2.0) < total(0.0, -2.0) - 1e-4


def prior_draws(part, batch: int, calls: int = 1) -> list[Tensor]:
    """What the student's `get_loss_discriminator` shows the discriminator besides the codes."""
    model = new_model(part)
    draws = []
    for _ in range(calls):
        model.discriminator = judge = Judge(0.5, 0.5, gives_probabilities(part))
        model.get_loss_discriminator(codes(batch))
        for z in judge.seen:
            rows = z.reshape(-1, z.shape[-1])
            real = rows[rows[:, 0] <= FAKE / 2]
            if len(real):
                draws.append(real)
    return draws


def expect_normal(values: Tensor, hint: str) -> None:
    """Compare numbers with N(0, 1) by the Kolmogorov-Smirnov distance, whose 99.99 % point is 2.2 / sqrt(n)."""
    ordered = values.flatten().double().sort().values
    steps = torch.arange(len(ordered) + 1, dtype=torch.double) / len(ordered)
    cdf = torch.special.ndtr(ordered)
    distance = torch.maximum(steps[1:] - cdf, cdf - steps[:-1]).max().item()
    expect(
        distance < 2.2 / len(ordered) ** 0.5,
        hint,
        expected="mean 0, std 1, normal",
        got=f"mean {ordered.mean():.2f}, std {ordered.std():.2f}, values {ordered[0]:.2f} to {ordered[-1]:.2f}",
    )


class Logger:
    """In the place of a TensorBoardLogger, and of its writer: takes everything and writes nothing."""

    def __init__(self, folder: str):
        self.log_dir, self.name, self.global_step, self.avg_window = folder, "stand-in", 0, 50
        self.summary_writer = self

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def righted(part) -> nn.Module:
    """A model of the student's class whose losses are right, can be scaled (`ae_scale`, `d_scale`), and draw nothing
    at random. Its discriminator's loss cuts the codes off where the student's own does."""
    cuts = _cuts_codes_off(part)

    class Righted(part.models.AdversarialAE):
        ae_scale = d_scale = 1.0

        @property
        def device(self) -> torch.device:
            return self.encoder.device

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            z = self.encoder(x)
            recon_x = self.decoder(z)
            try:  # the student's own outputs, of which there may be more, where the first two are right
                own = super().forward(x)
                if torch.allclose(own[0], recon_x) and torch.allclose(own[1], z):
                    return own
            except Exception:
                pass
            return recon_x, z

        def get_loss_autoencoder(self, x, recon_x, z_fake, lambda_=1):
            self.lambdas = [*getattr(self, "lambdas", []), lambda_]
            logits = self.discriminator(z_fake)
            recon = F.mse_loss(recon_x, x)
            gen = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
            loss = self.ae_scale * (lambda_ * recon + (1 - lambda_) * gen)
            return loss, {"gen_loss": gen, "recon_loss": recon, "ae_loss": loss}

        def get_loss_discriminator(self, z_fake):
            z_fake = z_fake.detach() if cuts else z_fake
            fake, real = self.discriminator(z_fake), self.discriminator(torch.linspace(-1, 1, Z).repeat(len(z_fake), 1))
            loss_real = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
            loss_fake = F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
            loss = self.d_scale * (loss_real + loss_fake) / 2
            accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
            return loss, {"disc_loss": loss, "loss_real": loss_real, "loss_fake": loss_fake, "accuracy": accuracy}

        def sample(self, batch_size):
            return self.decoder(torch.randn(batch_size, Z))

    return new_model(part, Righted)


def _cuts_codes_off(part) -> bool:
    """Whether no gradient comes back from the student's discriminator loss to the codes."""
    try:
        model, z = new_model(part), codes().requires_grad_()
        model.discriminator = Judge(0.0, 0.0, gives_probabilities(part))
        model.get_loss_discriminator(z)[0].backward()
        return z.grad is None
    except Exception:
        return True


def play(
    part,
    *,
    model: nn.Module | None = None,
    lambda_: float = 0.5,
    ae_scale: float = 1.0,
    d_scale: float = 1.0,
    lr: float = 0.0,
    batches: int = 3,
) -> SimpleNamespace:
    """One epoch of the student's `train_aae` with this model, or a right one, and equal batches of images.

    Returns:
        `model`; `start`, its parameters before; `ae` and `disc`, the gradients of encoder and decoder at each step of
        their optimizer, and of the discriminator at each of its.
    """
    torch.manual_seed(0)
    model = model or righted(part)
    model.ae_scale, model.d_scale = ae_scale, d_scale
    autoencoder = [*model.encoder.parameters(), *model.decoder.parameters()]
    optimizers = torch.optim.SGD(autoencoder, lr=lr), torch.optim.SGD(model.discriminator.parameters(), lr=lr)
    steps = [], []
    for optimizer, noted in zip(optimizers, steps, strict=True):
        parameters = optimizer.param_groups[0]["params"]

        def note(*_: Any, parameters=parameters, noted=noted) -> None:
            noted.append(
                torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
            )

        optimizer.register_step_pre_hook(note)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    images = (torch.rand(4, 1, 28, 28) * 2 - 1).repeat(batches, 1, 1, 1)
    data = torch.utils.data.TensorDataset(images, torch.zeros(len(images), dtype=torch.long))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("results/Reconstruction", "results/Prior_samples", "checkpoints"):
            Path(folder, name).mkdir(parents=True)
        with patch.multiple(part.train, create=True, save_reconstruction=lambda *args, **kwargs: None):
            part.train.train_aae(3, model, loader, Logger(folder), Logger(folder), *optimizers, lambda_)
    return SimpleNamespace(model=model, start=start, ae=steps[0], disc=steps[1], images=images[:4])


def expect_own_loss(found: SimpleNamespace, name: str) -> None:
    """Compare the gradient of the first step of 'ae' or 'disc', where the other loss is 0, with that of the loss that
    the model returns. The model's log has losses with other gradients."""
    model = found.model
    z = model.encoder(found.images)
    if name == "ae":
        lambda_ = model.lambdas[0]
        loss, network = model.get_loss_autoencoder(found.images, model.decoder(z), z, lambda_)[0], "autoencoder"
        parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    else:
        loss, network = model.get_loss_discriminator(z)[0], "discriminator"
        parameters = list(model.discriminator.parameters())
    right = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, parameters)])
    directions = [F.normalize(gradient, dim=0) for gradient in (right, getattr(found, name)[0])]
    expect(
        torch.dist(*directions) < 0.02,
        f"train_aae steps on another loss than the one that get_loss_{network} returns: call backward on the first of "
        "its two results, not on an entry of the dictionary for the log",
        expected="the gradient of the returned loss",
        got="another gradient",
    )

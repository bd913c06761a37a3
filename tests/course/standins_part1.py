"""Right networks and functions of part 1, put around the function that is judged, so that a mistake elsewhere costs it
nothing. They have what handed-out code and common solutions ask of the real ones: keyword arguments, `device`, `z_dim`,
`linear`, `net`, parameters, contiguous outputs.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course.criterion import Failure, NotANumber

NATS_PER_BIT = math.log(2)
PIXELS = 28 * 28
Z_DIM = 20  # the assignment's; with 32 filters it is what every solution must support
FUNCTIONS = ("KLD", "sample_reparameterize", "elbo_to_bpd")


def number(value: Any) -> float:
    """A Python float, or a tensor or array of one element, as a float."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.numel() != 1:
            raise Failure(
                "one number is expected here", expected="a scalar", got=f"a tensor of shape {list(value.shape)}"
            )
    return float(value)


def close(got: Any, expected: Any, relative: float = 1e-3, absolute: float = 1e-4) -> bool:
    """Whether two numbers agree."""
    return math.isclose(float(got), float(expected), rel_tol=relative, abs_tol=absolute)


def kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL divergence of N(mean, std^2) from N(0, 1) in nats, summed over the last dimension (eq. 13)."""
    return 0.5 * (torch.exp(2 * log_std) + mean**2 - 1 - 2 * log_std).sum(dim=-1)


def bpd(nll: Any, img_shape: Any) -> Any:
    """Bits per dimension; a shape of three numbers has no batch dimension."""
    shape = [int(size) for size in img_shape]
    return nll / (math.prod(shape[1:] if len(shape) > 3 else shape) * NATS_PER_BIT)


class Network(nn.Module):
    """What both networks offer."""

    def __init__(self, channels: int, num_filters: int = 32, z_dim: int = Z_DIM):
        super().__init__()
        self.num_input_channels, self.num_filters, self.z_dim = channels, num_filters, z_dim
        self.latent_dim = z_dim
        self.linear = nn.Sequential(nn.Linear(z_dim, 2 * num_filters * 4 * 4), nn.GELU())
        self.net = nn.Sequential(nn.Conv2d(channels, num_filters, kernel_size=3, padding=1), nn.GELU())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class Encoder(Network):
    """Mean and second output (a log std to most solutions) that do not look at the image: the means of five successive
    images differ. The second output is positive, so that it is valid as a standard deviation, too."""

    def __init__(
        self, num_input_channels: int = 1, num_filters: int = 32, z_dim: int = Z_DIM, *args: Any, **kwargs: Any
    ):
        super().__init__(num_input_channels, num_filters, z_dim)
        self.mean = nn.Parameter(torch.linspace(-1, 1, z_dim))
        self.second = nn.Parameter(torch.tensor([0.4, 1.1]).repeat((z_dim + 1) // 2)[:z_dim])
        self.extra: tuple = ()  # what the student's encoder returns beside

    def means(self, batch_size: int) -> Tensor:
        offsets = 0.2 * (torch.arange(batch_size) % 5)
        return self.mean + offsets.to(self.mean.device).unsqueeze(1)

    def forward(self, x: Tensor) -> tuple:
        mean = self.means(len(x))
        return (mean, self.second.repeat(len(x), 1), *self.extra)


class Decoder(Network):
    """Logits [N, 16, 28, 28], normalised (so that they are log probabilities, too) unless `shift` is not zero, which do
    not depend on z unless `slope` is not zero. `seen` holds the latent vectors that it was given.

    Where the logits are fewer than the latent vectors they are repeated; where they are more, each call continues
    after the last, so that latent vectors may come one by one.
    """

    def __init__(
        self, num_input_channels: int = 16, num_filters: int = 32, z_dim: int = Z_DIM, *args: Any, **kwargs: Any
    ):
        super().__init__(16, num_filters, z_dim)
        self.logits = nn.Parameter(torch.zeros(1, 16, 28, 28))
        self.slope, self.shift, self.next = 0.0, 0.0, 0
        self.seen: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        self.seen.append(z.detach())
        self.linear(z)  # stops where the real one would: z of another width, type or device
        first = self.next if len(z) < len(self.logits) else 0
        logits = self.logits[(first + torch.arange(len(z))) % len(self.logits)]
        self.next = (first + len(z)) % len(self.logits)
        if self.slope:
            tilt = torch.linspace(-1, 1, 16, device=z.device).view(1, 16, 1, 1)
            logits = logits + self.slope * tilt * z.sum(dim=1).view(-1, 1, 1, 1)
        return F.log_softmax(logits, dim=1).contiguous() + self.shift

    def latents(self) -> Tensor:
        """All latent vectors seen, [N, z_dim]."""
        if not self.seen:
            raise Failure("the decoder is never called")
        return torch.cat([z.reshape(-1, z.shape[-1]) for z in self.seen]).cpu()


def sure_of(pictures: Tensor, confidence: float = 60.0) -> nn.Parameter:
    """Logits of a decoder that is sure of these grey values: long [N, 28, 28] or [N, 1, 28, 28]."""
    one_hot = F.one_hot(pictures.reshape(-1, 28, 28), 16).permute(0, 3, 1, 2)
    return nn.Parameter(confidence * one_hot.float())


class Calls:
    """Right versions of the functions in utils.py, and what they were given and returned."""

    def __init__(self):
        self.kl_inputs: list[tuple[Tensor, Tensor]] = []
        self.kl_values: list[Tensor] = []
        self.stds: list[Tensor] = []

    def KLD(self, *args: Any, **kwargs: Any) -> Tensor:
        mean, log_std = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)][:2]
        self.kl_inputs.append((mean.detach(), log_std.detach()))
        self.kl_values.append(kl(mean, log_std))
        return self.kl_values[-1]

    def sample_reparameterize(self, *args: Any, **kwargs: Any) -> Tensor:
        mean, std = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)][:2]
        self.stds.append(std.detach())
        return mean + std * torch.randn_like(mean)

    def elbo_to_bpd(self, *args: Any, **kwargs: Any) -> Any:
        return bpd(*(*args, *kwargs.values())[:2])


def own_modules(part: Any) -> list[ModuleType]:
    """The student's modules that are imported by now."""
    folder = str(part.folder)
    return [module for module in list(sys.modules.values()) if str(getattr(module, "__file__", "")).startswith(folder)]


def find(part: Any, name: str) -> Any:
    """What the student calls so, in whichever of the modules; None where it is nowhere."""
    for module in own_modules(part):
        if name in vars(module):
            return vars(module)[name]
    return None


@contextlib.contextmanager
def replaced(part: Any, replacements: dict[str, Any]) -> Iterator[None]:
    """Put others in the place of the student's functions or classes, under every name and in every module that refers
    to them (`from utils import *` copies names)."""
    changed = []
    for name, replacement in replacements.items():
        original = find(part, name)
        if original is None:
            continue
        for module in own_modules(part):
            for alias in [alias for alias, value in vars(module).items() if value is original]:
                changed.append((module, alias, original))
                setattr(module, alias, replacement)
    try:
        yield
    finally:
        for module, alias, original in changed:
            setattr(module, alias, original)


def make_vae(part: Any, z_dim: int = Z_DIM, lr: float = 1e-3) -> Any:
    """The student's VAE between right networks."""
    train_pl = part.train_pl
    with torch.random.fork_rng(devices=[]):  # the same weights at each call
        torch.manual_seed(0)
        encoder = Encoder(z_dim=z_dim)
        encoder.extra = _extra_outputs(part)
        with replaced(part, {"CNNEncoder": Encoder, "CNNDecoder": Decoder}):
            vae = construct(train_pl.VAE, lr=lr, z_dim=z_dim)
        vae.encoder, vae.decoder = encoder, Decoder(z_dim=z_dim)
    return vae


def construct(cls: Callable[..., Any], lr: float = 1e-3, z_dim: int = Z_DIM) -> Any:
    """VAE of the student's with 32 filters."""
    try:
        return cls(num_filters=32, z_dim=z_dim, lr=lr)
    except TypeError as error:
        if "model_name" in str(error):  # of 2020, when there were networks without convolutions, too
            return cls(model_name="CNN", hidden_dims=[512], num_filters=32, z_dim=z_dim, lr=lr)
        return cls(32, z_dim, lr)


def network(part: Any, name: str, z_dim: int = Z_DIM) -> nn.Module:
    """The student's CNNEncoder or CNNDecoder with 32 filters, made as the handed-out code makes it."""
    cls = getattr(part.cnn_encoder_decoder, name)
    try:
        return cls(z_dim=z_dim, num_filters=32)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        return cls(1 if name == "CNNEncoder" else 16, 32, z_dim)


def images(batch_size: int = 5) -> Tensor:
    """Grey values with a structure that no flip, shift or permutation leaves alone: long [B, 1, 28, 28]."""
    y, x, n = torch.arange(28).view(28, 1), torch.arange(28), torch.arange(batch_size).view(-1, 1, 1)
    return ((3 * x + 5 * y + x * y // 3 + 7 * n) % 16).unsqueeze(1)


def losses(vae: Any, imgs: Tensor) -> tuple[Any, Any, Any]:
    """L_rec, L_reg, bpd of a batch. Raises NotANumber."""
    result = vae(imgs)
    if result is None:
        raise Failure("VAE.forward returns nothing: is it implemented?")
    if not isinstance(result, (tuple, list)) or len(result) < 3:
        raise Failure("VAE.forward returns three values: L_rec, L_reg, bpd", got=type(result).__name__)
    if isinstance(result[0], Tensor) and result[0].isnan().any():
        raise NotANumber("L_rec is NaN")
    return tuple(result[:3])


def either(part: Any, check: Callable[[Any, Calls | None], None]) -> None:
    """Hold `check` with right functions around VAE.forward, and else with the student's own, which may divide the
    work otherwise (a KLD that is not summed, and a forward that sums it): one of the two must pass.

    `check` gets the VAE, and the calls of the right functions, or None.
    """
    calls = Calls()
    vae = make_vae(part)
    try:
        with replaced(part, {name: getattr(calls, name) for name in FUNCTIONS}):
            check(vae, calls)
    except Exception as first:
        with contextlib.suppress(Exception):
            torch.manual_seed(0)
            check(make_vae(part), None)
            return
        raise first


def _extra_outputs(part: Any) -> tuple:
    """What the student's encoder returns beside mean and log std."""
    with contextlib.suppress(Exception), torch.no_grad():
        outputs = network(part, "CNNEncoder")(images())
        if isinstance(outputs, (tuple, list)):
            return tuple(outputs[2:])
    return ()

"""The reparameterised sample z = mean + std * eps, eps ~ N(0, I).

Accepted: any way to make the noise (`randn_like`, `torch.normal(0, 1)`, `normal_()`, NumPy).
"""

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from course.criterion import Failure, Remark, criterion, expect, said
from course.standins_part1 import close


def _seeded(part, mean: float, std: float) -> Tensor:
    torch.manual_seed(3)
    np.random.seed(3)
    return part.utils.sample_reparameterize(torch.full((4, 5), mean), torch.full((4, 5), std)).detach()


def _noise(part, calls: int = 3000) -> np.ndarray:
    """Samples less the mean, one element a call, so that noise that elements share does not show."""
    one = torch.ones(1, 1)
    return np.array([float(part.utils.sample_reparameterize(one, one)) - 1 for _ in range(calls)])


@criterion("1.7")
def reparameterisation_scale(part):
    """The noise is multiplied by the standard deviation, and the mean is added."""
    for std in (0.25, 2.0):
        unit = _seeded(part, 0.0, 1.0)
        ratio = float((_seeded(part, 0.0, std) / unit).mean())
        hint = "z = mean + std * noise"
        for value, mistake in (
            (std**2, "std is squared: it is the standard deviation already"),
            (std**0.5, "std is taken for the variance: no square root is needed"),
            (math.exp(std - 1), "std is the standard deviation already: no exp"),
            (math.exp(0.5 * (std - 1)), "std is the standard deviation already: no exp"),
            (1.0, "the noise is not scaled by std"),
        ):
            if close(ratio, value):
                hint = mistake
        expect(
            close(ratio, std),
            hint,
            given=f"std {std:g}",
            expected=f"noise times {std:g}",
            got=f"noise times {ratio:.4g}",
        )
    for mean in (-3.0, 5.0):
        shift = float((_seeded(part, mean, 1.0) - unit).mean())
        expect(
            close(shift, mean),
            "the mean is added to the scaled noise",
            given=f"mean {mean:g}",
            expected=mean,
            got=shift,
        )


@criterion("1.7")
def reparameterisation_noise_is_normal(part):
    """The noise follows a standard normal distribution."""
    noise = _noise(part)
    spread = noise.std()
    if spread < 1e-6:
        return  # judged by reparameterisation_noise_is_independent
    given = "3000 samples with std 1"
    try:
        reparameterisation_scale(part)
    except Failure:
        noise, spread = (noise - noise.mean()) / spread, 1.0
    uniform = noise.min() >= 0 and noise.max() <= 1
    hint = "the noise is uniform (torch.rand): torch.randn is normal" if uniform else "the noise must follow N(0, 1)"
    expect(abs(noise.mean()) < 0.1 and abs(spread - 1) < 0.07, hint, given=given, expected="mean 0, std 1",
           got=f"mean {noise.mean():.2f}, std {spread:.2f}")  # fmt: skip
    p_value = stats.kstest(noise / spread, "norm").pvalue
    expect(p_value > 1e-5, hint, given=given, expected="N(0, 1)", got="another distribution")


@criterion("1.7")
def reparameterisation_noise_is_independent(part):
    """Every element of every sample has noise of its own."""
    ones = torch.ones(64, 20)
    z = part.utils.sample_reparameterize(ones, ones).detach()
    expect(z.shape == ones.shape, "the sample has the shape of the mean", expected=ones.shape, got=z.shape)
    different = len(z.unique())
    hint = "torch.randn needs the shape of the mean (randn_like), so that each element has noise of its own"
    if different == 1:
        hint = "one noise value is used for all elements: each latent dimension of each image needs its own"
    elif torch.equal(z[0], z[1]):
        hint = "all images of the batch share their noise: each needs its own"
    elif torch.equal(z[:, 0], z[:, 1]):
        hint = "the latent dimensions of an image share their noise: each needs its own"
    expect(
        different > 1200,
        hint,
        given="64 images, 20 latent dimensions",
        expected="1280 values",
        got=f"{different} values",
    )
    again = part.utils.sample_reparameterize(ones, ones).detach()
    expect(not torch.equal(z, again), "a second call gives the same noise: do not fix the seed inside")


@criterion("1.7")
def reparameterisation_of_any_shape(part):
    """Mean and standard deviation may have any number of dimensions."""
    try:
        reparameterisation_noise_is_independent(part)
    except Failure:
        return  # wrong for two dimensions already
    for shape in ((6,), (2, 3, 6)):
        ones = torch.ones(shape)
        try:
            z = part.utils.sample_reparameterize(ones, ones).detach()
        except Exception as error:
            hint = "sample_reparameterize fails for tensors that have not two dimensions: the template asks for any"
            raise Failure(hint, given=f"the shape {list(shape)}", got=said(error)) from error
        right = z.shape == ones.shape and len(z.unique()) == z.numel()
        hint = "each element of a mean of any shape needs noise of its own: torch.randn_like(std)"
        got = f"shape {list(z.shape)}, {len(z.unique())} different values"
        expect(right, hint, given=f"the shape {list(shape)}", expected=f"{ones.numel()} values", got=got)


@criterion("1.7")
def reparameterisation_gradients(part):
    """Gradients reach mean and standard deviation through the sample."""
    mean, std = torch.randn(4, 5).requires_grad_(), (torch.rand(4, 5) + 0.5).requires_grad_()
    z = part.utils.sample_reparameterize(mean, std)
    hint = "no gradient flows through the sample: compute mean + std * noise with the tensors themselves, no detach"
    expect(z.requires_grad, hint)
    z.sum().backward()
    for name, tensor in (("mean", mean), ("std", std)):
        missing = tensor.grad is None or not bool(tensor.grad.any())
        expect(not missing, hint, expected=f"a gradient of {name}", got="none")


@criterion("1.7")
def reparameterisation_refuses_negative_std(part):
    """A negative standard deviation is refused (a remark)."""
    try:
        part.utils.sample_reparameterize(torch.zeros(2, 3), torch.tensor([[1.0, 1.0, -0.1]]).repeat(2, 1))
    except NotImplementedError as error:
        raise Failure("sample_reparameterize is not implemented") from error
    except Exception:
        return
    raise Remark("the template's check that no std is negative is gone; it finds a log std that is passed by mistake")

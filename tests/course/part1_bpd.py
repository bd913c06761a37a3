"""Bits per dimension: nll * log2(e) / prod(d_i), without the batch dimension.

Accepted: elbo as a tensor of any shape or a number; a result that is a tensor or a Python float.
"""

import math

import torch

from course.criterion import criterion, expect
from course.standins_part1 import PIXELS, close, number

NLL = 200.0


def _bpd(part, *shape: int, nll: float = NLL) -> float:
    return number(part.utils.elbo_to_bpd(torch.tensor(nll), torch.Size(shape)))


@criterion("1.7")
def bpd_value(part):
    """Bits per dimension of one image."""
    log2e = math.log2(math.e)
    got, expected = _bpd(part, 1, 1, 28, 28), NLL * log2e / PIXELS
    hint = "bits per dimension are nll * log2(e) / (channels * height * width)"
    for value, mistake in (
        (NLL / PIXELS, "these are nats: the change to bits, times log2(e), is missing"),
        (NLL * log2e**2 / PIXELS, "the result is multiplied by log2(e) twice"),
        (NLL / log2e / PIXELS, "nats become bits by multiplying with log2(e), not by dividing"),
        (NLL * log2e, "it is not divided by the number of dimensions, channels * height * width"),
        (-expected, "the sign is turned: nll is the negative log-likelihood already"),
    ):
        if close(got, value):
            hint = mistake
    expect(close(got, expected), hint, given=f"nll {NLL:g}, one image of 1 x 28 x 28", expected=expected, got=got)


@criterion("1.7")
def bpd_batch_does_not_count(part):
    """The batch dimension does not count in bits per dimension."""
    one, many = _bpd(part, 1, 1, 28, 28), _bpd(part, 13, 1, 28, 28)
    hint = "bits per dimension of an image do not depend on how many images are in the batch: leave out img_shape[0]"
    expect(close(many, one), hint, given="the shape [13, 1, 28, 28]", expected=f"{one:.4g}, as for one image", got=many)


@criterion("1.7")
def bpd_all_dimensions_count(part):
    """Channels, height and width all count in bits per dimension."""
    shapes = ((1, 3, 28, 28), (1, 1, 14, 28), (1, 1, 28, 7))
    factor = _bpd(part, 1, 1, 28, 28) * PIXELS / NLL
    if not any(close(abs(factor), math.log2(math.e) ** power) for power in (0, 1, 2, -1)):
        return  # no product of the dimensions at all, which bpd_value tells
    for shape in shapes:
        ratio = _bpd(part, *shape) * math.prod(shape) / (_bpd(part, 1, 1, 28, 28) * PIXELS)
        hint = "divide by the product of channels, height and width of the shape that is given"
        expect(close(ratio, 1), hint, given=f"the shape {list(shape)}", expected=1, got=f"{ratio:.4g} times as much")

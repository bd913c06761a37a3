"""Finds an activation after the last layer, whose outputs never get clearly negative."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course.criterion import expect


def expect_both_signs(network: nn.Module, outputs: Callable[[], Tensor], hint: str) -> None:
    """Raise Failure with the hint where the outputs are never negative, or, as after GELU, hardly.

    Args:
        network: gets large random biases, so that many outputs have both signs unless something prevents it.
        outputs: gives at least a hundred outputs of the network.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        outputs()  # gives lazy layers their weights
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=3)
        values = outputs()
    low, high = float(values.min()), float(values.max())
    right = low < -0.2 or high <= 0 or (low < 0 and high < 2)
    expect(right, hint, given="a network with random biases", expected="numbers of both signs", got=values)

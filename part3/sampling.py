"""Which tokens may be drawn: pure functions of logits, which `GPT.generate` uses."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from run import InputError


def divide_by_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide logits by a temperature: above 1 flattens the distribution, below 1 sharpens it.

    The highest logit of each row is subtracted first, which the softmax does not see: a tiny temperature so makes the
    others minus infinity, and none NaN.

    Args:
        logits: [B, V].
        temperature: above 0.

    Returns:
        [B, V], at most 0, in float32 or wider.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    smallest = torch.finfo(logits.dtype).tiny  # below it, numbers may count as 0
    return (logits - logits.amax(dim=-1, keepdim=True)) / max(temperature, smallest)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Minus infinity for all but the k highest logits of each row, [B, V]. More than V means all; of equal logits at
    the border, as many stay as make k."""
    highest, tokens = logits.topk(min(k, logits.size(-1)), dim=-1)  # (B, k) each
    return torch.full_like(logits, -math.inf).scatter(-1, tokens, highest)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Minus infinity for all but the fewest, most probable tokens of each row, [B, V], whose probabilities sum to at
    least p (nucleus sampling, Holtzman et al., 2020)."""
    ordered, tokens = logits.sort(dim=-1, descending=True)  # (B, V) each
    sums = ordered.softmax(dim=-1).cumsum(dim=-1)  # (B, V)
    dropped = F.pad(sums[:, :-1] >= p, (1, 0))  # (B, V), where the more probable tokens suffice; never the first
    ordered = ordered.masked_fill(dropped, -math.inf)
    return torch.full_like(logits, -math.inf).scatter(-1, tokens, ordered)


def check_finite(logits: Tensor) -> None:
    """Raise InputError if a row's highest logit is infinite or NaN; not on a GPU, where a check of every token would
    wait for it each time."""
    if logits.device.type != "cuda" and not bool(logits.amax(dim=-1).isfinite().all()):
        raise InputError("the model's logits are not finite: its weights are damaged, or its training diverged; give "
                         "another checkpoint, or another --dtype")  # fmt: skip

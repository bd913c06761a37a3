"""From logits to tokens: pure functions under the generation loop."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from inputs import NotFiniteError


def sample_logits(
    logits: Tensor,
    temperature: float = 1.0,
    do_sample: bool = True,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Choose one token for each row of logits.

    The distribution is softmax(logits / temperature). Of it, `top_k` keeps the k most probable tokens, and `top_p`
    (nucleus sampling, Holtzman et al., 2020) then the fewest tokens whose probabilities sum up to at least p.

    Args:
        logits: [B, V]; not changed.
        temperature: above 1 flattens the distribution, below 1 sharpens it; 0 means greedy.
        do_sample: draw with `torch.multinomial`; else take the most probable token.
        top_k: at least 1; more than V means V. Of equally probable tokens at the border, as many stay as make k.
        top_p: above 0 and at most 1.
        generator: where the random numbers come from; PyTorch's own by default.

    Returns:
        long [B].

    Raises:
        ValueError: an argument is out of range.
        NotFiniteError: a row's highest logit is infinite or NaN (checked on a CPU only).
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be a number of at least 0, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
    if not do_sample or temperature == 0:
        tokens = logits.argmax(dim=-1)  # (B,), that of a NaN if there is one
        _check_finite(logits.gather(-1, tokens.unsqueeze(-1)))
        return tokens
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # (B, V)
    # The highest logit is subtracted first, so that a tiny temperature makes the others minus infinity, and none NaN.
    limits = torch.finfo(logits.dtype)
    temperature = min(max(temperature, limits.tiny), limits.max)
    highest = logits.amax(dim=-1, keepdim=True)  # (B, 1)
    _check_finite(highest)
    logits = (logits - highest) / temperature  # (B, V)
    tokens = None
    if top_k is not None or top_p is not None:
        k = min(top_k or logits.size(-1), logits.size(-1))
        logits, tokens = logits.topk(k, dim=-1)  # (B, k) each, descending
    probs = logits.softmax(dim=-1)  # (B, k)
    if top_p is not None:
        better = F.pad(probs.cumsum(dim=-1)[:, :-1], (1, 0))  # (B, k), the probability of all more probable tokens
        probs = probs.where(better < max(top_p, limits.tiny), 0)  # a smaller p would be 0 here, and keep no token
    drawn = torch.multinomial(probs, num_samples=1, generator=generator)  # (B, 1), columns of probs
    return (drawn if tokens is None else tokens.gather(-1, drawn)).squeeze(-1)  # (B,)


def _check_finite(highest: Tensor) -> None:
    """Raise NotFiniteError, except on a GPU, where a check of every token would wait for it each time."""
    if highest.device.type != "cuda" and not bool(highest.isfinite().all()):
        raise NotFiniteError("the model's logits are not finite: its weights are damaged, or its training diverged; "
                             "give another checkpoint, or raise --dtype")  # fmt: skip


def ends_with(tokens: Tensor, stop: Sequence[Sequence[int]]) -> Tensor:
    """Which rows end with one of the sequences.

    Args:
        tokens: long [B, T].
        stop: sequences of tokens; an empty one ends no row.

    Returns:
        bool [B].
    """
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    for sequence in stop:
        if 0 < len(sequence) <= tokens.size(1):
            tail = torch.tensor(sequence, device=tokens.device)
            ended |= (tokens[:, -len(sequence) :] == tail).all(dim=1)
    return ended

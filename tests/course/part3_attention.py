"""Causal self-attention: scale, mask, softmax.

The weights are found from the output, so that any way to compute them is accepted: queries scaled before the product,
einsum, masks of any type, minus infinity or a number as low as -1e9, extra outputs, PyTorch's fused function.
"""

import math

import torch

from course.criterion import Nothing, Remark, criterion, expect
from course.gpt_probes import (
    BATCH,
    CHANNELS,
    HANDED_OUT,
    LENGTH,
    SIZE,
    Weights,
    attempt,
    attend,
    build_attention,
    config,
    expect_causal,
    expect_scale,
    softmax_of,
    triangle,
)
from course.pretended_gpu import on_gpu, stays_on_gpu


@criterion("3.2")
def attention_is_a_softmax_of_scores(part):
    """The output is a mean of the values, weighed by a softmax of the queries' products with the keys."""
    module = build_attention(part)
    found = attend(module)
    if found.known.all() and not found.seen.any():
        raise Nothing("the attention's output is 0, whatever the values are", expected="weights @ v", got=found.output)
    expect(found.rest < 1e-4, "a head's output is no weighted sum of its values: it must be weights @ v")
    axis, _ = softmax_of(found)
    hint = "the weights are no softmax of q @ k.transpose(-2, -1)"
    if _has_softmax_twice(found):
        hint = "the softmax is applied twice: once, after the mask"
    elif _is_negative(found):
        hint = "the weights are negative: softmax it must be, not log_softmax or the scores themselves"
    expect(axis or not found.seen.any(), hint)
    if module.layout != HANDED_OUT:
        hint = (
            "queries, keys and values, or the heads, lie in the layer's own layout: right for a new model, but GPT-2's "
        )
        raise Remark(hint + "weights, which lie one after the other, do not fit")


def _has_softmax_twice(found: Weights) -> bool:
    scores = (found.scores / math.sqrt(SIZE)).masked_fill(~triangle(), float("-inf"))
    return torch.allclose(found.weights, scores.softmax(dim=-1).softmax(dim=-1).to(found.weights.dtype), atol=1e-4)


def _is_filled_afterwards(found: Weights) -> bool:
    """Whether the output is no number wherever anything is hidden, that is at all positions but the last."""
    rows = found.known.all(dim=-1).all(dim=1).all(dim=0)  # (T)
    return bool(rows[-1] and not rows[:-1].any())


def _is_negative(found: Weights) -> bool:
    return bool((found.weights.nan_to_num() < -1e-3).any())


@criterion("3.2")
def attention_scale(part):
    """The scores are divided by the square root of a head's size."""
    axis, c = softmax_of(attend(build_attention(part)))
    if axis is None:
        return
    hints = {
        1.0: "the scores are not scaled: divide them by sqrt(head size)",
        1 / SIZE: "the scores are divided by the head size: take its square root",
        1
        / math.sqrt(
            CHANNELS
        ): "the scores are divided by the square root of the model's width: it must be the head's size",
        1 / CHANNELS: "the scores are divided by the model's width: it must be the square root of the head's size",
        math.sqrt(SIZE): "the scores are multiplied by sqrt(head size): divide them",
        1 / math.sqrt(LENGTH): "the scores are divided by the square root of the length: it must be the head's size",
    }
    hint = next((hint for value, hint in hints.items() if abs(c / value - 1) < 1e-2), "the scores are scaled wrongly")
    expect_scale(c, hint)


@criterion("3.2")
def attention_is_causal(part):
    """Each position sees itself and those before it."""
    found = attend(build_attention(part))
    if found.known.all() and found.rest > 1e-4:
        return  # no sum of values, which attention_is_a_softmax_of_scores tells
    axis, _ = softmax_of(found)
    transposed = torch.equal(found.seen, triangle().T.expand_as(found.seen))
    if axis is None and found.known.all() and (transposed or _is_negative(found) or _has_softmax_twice(found)):
        return  # which attention_is_a_softmax_of_scores tells
    if _is_filled_afterwards(found):
        return  # which attention_masks_before_the_softmax tells
    if axis not in ("head", "batch"):  # where all that a softmax is over may be masked
        expect_causal(found)


@criterion("3.2")
def attention_masks_before_the_softmax(part):
    """The weights of a position sum up to 1."""
    found = attend(build_attention(part))
    axis, c = softmax_of(found)
    if axis in ("head", "batch"):
        return  # where all that a softmax is over may be masked, which attention_softmax_over_the_keys tells
    hint = "minus infinity is filled into the weights, after the softmax: mask the scores before it"
    expect(not _is_filled_afterwards(found), hint, expected="finite numbers", got="NaN")
    if axis != "row":
        return
    sums = found.weights.nan_to_num(posinf=0, neginf=0).sum(dim=-1)[found.known.all(dim=-1)]
    if len(sums) and sums.max() - sums.min() < 1e-6 and abs(c * math.sqrt(SIZE) - 1) > 1e-2:
        return  # the weights are scaled in place of the scores, which attention_scale tells
    expect(
        ((sums - 1).abs() < 1e-3).all(),
        "the weights of a position do not sum up to 1: mask the scores before the softmax, not the weights after it",
        expected=1.0,
        got=sums.min() if len(sums) else None,
    )


@criterion("3.2")
def attention_softmax_over_the_keys(part):
    """The softmax is over the keys, the last axis of the scores."""
    axis, _ = softmax_of(attend(build_attention(part)))
    names = {"column": "queries (the second last axis)", "head": "heads", "batch": "sequences of the batch"}
    expect(axis in (None, "row"), f"the softmax is over the {names.get(axis)}: it must be over the keys, dim=-1")


@criterion("3.2")
def attention_mask_is_infinite(part):
    """The mask hides what comes after also where scores are large."""
    if (attend(build_attention(part)).seen & ~triangle()).any():
        return
    module = build_attention(part)
    leaks = []
    for dtype in (torch.double, torch.float):  # a number that is chosen by dtype is judged in that which it fits
        weights = attend(module.to(dtype), scale=600).weights.nan_to_num()
        leaks.append(weights.where(~triangle(), torch.zeros(())).max().item())
    leak = min(leaks)
    expect(
        leak < 1e-4,
        "the mask is a finite number, which large scores exceed: fill with float('-inf')",
        given="scores above 1e5",
        expected="weight 0 for what comes after",
        got=leak,
    )


@criterion("3.2")
def attention_mask_fits_the_sequence(part):
    """Sequences may be shorter than block_size."""
    exact = attend(build_attention(part))  # where that fails, length is not what matters
    longer = build_attention(part, block=LENGTH + 4)
    found = attempt(
        lambda: attend(longer),
        "attention fails for sequences shorter than block_size: cut the mask to [:, :, :T, :T]",
        given=f"block_size {LENGTH + 4}, {LENGTH} positions",
    )
    expect(
        torch.allclose(found.output.nan_to_num(), exact.output.nan_to_num(), atol=1e-6),
        "the output depends on block_size: cut the mask to the sequence's length, [:, :, :T, :T]",
    )


@criterion("3.2")
def attention_on_the_device_of_the_input(part):
    """Attention makes its tensors on the model's device."""
    with stays_on_gpu(
        "attention makes a tensor on the CPU, whatever the model's device: use the buffer mask, or x.device"
    ):
        module = on_gpu(part.gpt.CausalSelfAttention(config(part, device="cuda")).eval())
        module(on_gpu(torch.zeros(BATCH, LENGTH, CHANNELS)))

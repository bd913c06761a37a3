"""Dropout in attention. The layer's second dropout, after the last linear layer, is handed out, and off here."""

import torch

from course.criterion import criterion, expect
from course.gpt_probes import attend, build_attention

PASSES = 6


def _passes(part, training: bool) -> list:
    module = build_attention(part, pdrop=0.5).train(training)
    return [attend(module) for _ in range(PASSES)]


def _vary(passes: list) -> bool:
    first = passes[0].output.nan_to_num()
    return any(not torch.allclose(first, other.output.nan_to_num(), atol=1e-6) for other in passes[1:])


@criterion("3.2")
def attention_has_dropout(part):
    """In training, dropout acts."""
    if not attend(build_attention(part)).output.isfinite().any():
        return  # a wrong mask, which attention_is_causal tells
    expect(
        _vary(_passes(part, training=True)),
        "attn_pdrop does nothing in training: apply attn_dropout to the weights after the softmax",
        given="attn_pdrop 0.5, the same input",
        expected="outputs that differ",
        got="equal outputs",
    )


@criterion("3.2")
def attention_drops_weights(part):
    """Dropout acts on the weights, after the softmax: each is 0, or 1 / (1 - p) times as large."""
    plain = attend(build_attention(part))
    right = plain.weights
    if plain.known.all() and plain.rest > 1e-4:
        return  # no sum of values, which attention_is_a_softmax_of_scores tells
    passes = _passes(part, training=True)
    if not _vary(passes):
        return
    for found in passes:
        known = right.isfinite() & found.known
        kept = (found.weights - 2 * right).abs() < 1e-4
        dropped = found.weights.abs() < 1e-4
        expect(
            (kept | dropped)[known].all(),
            "dropout is not on the attention's weights after the softmax, but on another tensor "
            "(scores, values or output)",
            given="attn_pdrop 0.5",
            expected="weights that are 0 or doubled",
        )


@criterion("3.2")
def attention_has_no_dropout_in_evaluation(part):
    """In evaluation, dropout is off."""
    right = attend(build_attention(part)).output.nan_to_num()
    for found in _passes(part, training=False):
        expect(
            torch.allclose(found.output.nan_to_num(), right, atol=1e-5),
            "dropout acts in evaluation mode as well: use the module attn_dropout, or pass training=self.training",
            given="a model in evaluation mode, attn_pdrop 0.5",
        )

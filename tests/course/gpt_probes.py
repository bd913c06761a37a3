"""Ways to look into a GPT from outside: its attention weights, and its generation from logits that are known.

Parameters are found by their shapes, so that every edition's names do.
"""

import contextlib
import inspect
import itertools
import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from course.criterion import Failure, expect, is_gap, said

HEADS, SIZE, LENGTH, BATCH = 4, 7, 5, 3  # heads, channels of a head, positions, sequences: all different
CHANNELS = HEADS * SIZE
FUSED = (
    "use_flash_attn",
    "use_flash_attention",
    "flash_attn",
    "flash_attention",
    "fused_attention",
    "use_fused",
    "flash",
)


def config(part, fused: bool = False, **changes: Any) -> Namespace:
    """A small model's config that answers the names of all editions, and the student's own by their defaults."""
    try:
        own = vars(part.gpt.GPT.get_default_config())
    except Exception:
        own = {}
    common = {
        "model_type": None,
        "n_layer": 1,
        "n_head": HEADS,
        "n_embd": CHANNELS,
        "vocab_size": 64,
        "block_size": LENGTH,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "abs_emb": True,
        "rotary": False,
        "use_rotary": False,
        "rotary_emb": False,
        "debug": False,
        "device": "cpu",
        "bias": True,
    }
    return Namespace(**{**own, **common, **dict.fromkeys(FUSED, fused), **changes})


@dataclass
class Weights:
    """What an attention layer did.

    Attributes:
        output: [B, T, C].
        weights: [B, nh, T, T], what each position (third axis) took of each value; NaN where the output is.
        scores: products of queries and keys, not scaled, of the same shape.
        rest: how far the output is from any combination of the values.
    """

    output: Tensor
    weights: Tensor
    scores: Tensor
    rest: float

    @property
    def known(self) -> Tensor:
        return self.weights.isfinite()

    @property
    def seen(self) -> Tensor:
        """Which weights are not 0."""
        return self.known & (self.weights.abs() > 1e-5)


def build_attention(part, fused: bool = False, pdrop: float = 0.0, block: int = LENGTH) -> nn.Module:
    """The student's attention layer in double precision, with weights that depend on their place alone: all layers
    made so are alike but for the arguments."""
    module = part.gpt.CausalSelfAttention(config(part, fused, attn_pdrop=pdrop, block_size=block)).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        *inner, last = _layers(module)
        for layer in inner:
            layer.weight.copy_(0.6 * torch.randn(layer.weight.shape, generator=generator, dtype=torch.double))
            if layer.bias is not None:
                layer.bias.copy_(0.1 * torch.randn(layer.bias.shape, generator=generator, dtype=torch.double))
        last.weight.copy_(torch.eye(CHANNELS))
        if last.bias is not None:
            last.bias.zero_()
    module.layout = HANDED_OUT
    if len(inner) == 1:
        with contextlib.suppress(Exception):
            output, joint = _run(module)
            right = (layout for layout in _layouts() if _is_right(_weights(output, joint, layout)))
            module.layout = next(right, HANDED_OUT)
    return module


# How one linear layer's output holds queries, keys and values, its axes in their order (0: which of the three; 1: head;
# 2: channel), which of the three comes first, and whether the heads' outputs are put side by side (else: mixed).
HANDED_OUT = ((0, 1, 2), (0, 1, 2), True)


def _layouts() -> Iterator[tuple]:
    """The handed-out layout first, then a layer's own: any of them is right if the layer treats it alike throughout."""
    three = list(itertools.permutations(range(3)))
    yield from ((axes, order, side) for side in (True, False) for axes in three for order in three)


def _is_right(found: Weights) -> bool:
    """Whether this is a causal attention, scaled in whatever way."""
    return bool(found.rest < 1e-4 and found.known.all() and softmax_of(found)[0] == "row"
                and torch.equal(found.seen, triangle().expand_as(found.seen)))  # fmt: skip


def _split(joint: Tensor, layout: tuple) -> list[Tensor]:
    """Queries, keys and values, each [B, nh, T, hs], of a linear layer's output [B, T, 3 * C]."""
    axes, order, _ = layout
    sizes = (3, HEADS, SIZE)
    parts = joint.view(*joint.shape[:2], *(sizes[axis] for axis in axes))
    parts = parts.permute(2 + axes.index(0), 0, 2 + axes.index(1), 1, 2 + axes.index(2))
    return [parts[order.index(place)] for place in range(3)]


def _layers(module: nn.Module) -> list[nn.Linear]:
    """The layer of queries, keys and values, or the three of them, and the one after the heads."""
    named = [(name.lower(), m) for name, m in module.named_modules() if isinstance(m, nn.Linear)]
    joint = [m for _, m in named if m.out_features == 3 * CHANNELS]
    single = [(name, m) for name, m in named if m.out_features == CHANNELS]
    if joint and single:
        return [joint[0], single[-1][1]]
    chosen = [[m for name, m in single if word in name] for word in ("q", "k", "v")]
    rest = [m for name, m in single if not any(m in group for group in chosen)]
    if all(chosen) and rest:
        return [*(group[0] for group in chosen), rest[-1]]
    raise Failure("the attention layer has no linear layers for queries, keys, values and output, as handed out")


def attend(module: nn.Module, scale: float = 1.0, length: int = LENGTH) -> Weights:
    """Let a layer of `build_attention` attend, and find its weights from its output."""
    return _weights(*_run(module, scale, length), module.layout)


def _run(module: nn.Module, scale: float = 1.0, length: int = LENGTH) -> tuple[Tensor, Tensor]:
    """The layer's output, [B, T, C], and its queries, keys and values together, [B, T, 3 * C]."""
    generator = torch.Generator().manual_seed(4)
    x = (
        scale
        * torch.linalg.qr(torch.randn(BATCH, CHANNELS, LENGTH, generator=generator, dtype=torch.double))[0].mT[
            :, :length
        ]
    )
    x = 0.8 * x.contiguous()
    with torch.no_grad():
        try:
            output = module(x)
        except RuntimeError:  # tensors of single precision may meet ours inside, which is no mistake
            output = module.float()(x.float())
            module.double()
        output = output[0] if isinstance(output, (tuple, list)) else output
        *inner, _ = _layers(module)
        joint = torch.cat([layer(x) for layer in inner], dim=-1)
    expect(
        isinstance(output, Tensor) and tuple(output.shape) == (BATCH, length, CHANNELS),
        "attention must give an output of the input's shape",
        expected=[BATCH, length, CHANNELS],
        got=list(getattr(output, "shape", [])),
    )
    return output, joint


def _weights(output: Tensor, joint: Tensor, layout: tuple) -> Weights:
    """What a layer with this layout did."""
    q, k, v = _split(joint, layout)
    heads = output.double().view(BATCH, output.size(1), *((HEADS, SIZE) if layout[2] else (SIZE, HEADS)))
    heads = heads.permute(0, 2, 1, 3) if layout[2] else heads.permute(0, 3, 1, 2)  # (B, nh, T, hs)
    weights = heads @ torch.linalg.pinv(v)  # (B, nh, T, T)
    rest = (weights @ v - heads).abs().nan_to_num().max().item() / max(heads.abs().nan_to_num().max().item(), 1e-9)
    return Weights(output, weights, q @ k.mT, rest)


AXES = {"row": -1, "column": -2, "head": 1, "batch": 0}


def softmax_of(found: Weights) -> tuple[str | None, float]:
    """Along which axis, and of which multiple of the scores, the weights are a softmax: log A = c S - offset, with one
    offset for each line along the axis. (None, 0) where they are none."""
    lower = torch.ones(found.weights.shape[-2:]).tril().bool()
    for seen in (found.seen, found.seen & lower):
        logs = found.weights.where(seen, torch.ones(())).log()
        for name, axis in AXES.items():
            count = seen.sum(axis, keepdim=True).clamp(min=1)
            centred = [
                (t.where(seen, 0) - t.where(seen, 0).sum(axis, keepdim=True) / count).where(seen, 0)
                for t in (logs, found.scores)
            ]
            square = (centred[1] ** 2).sum()
            if square < 1e-9:
                continue
            c = ((centred[0] * centred[1]).sum() / square).item()
            if (centred[0] - c * centred[1]).abs().max() < 1e-2:
                return name, c
    return None, 0.0


def triangle() -> Tensor:
    return torch.ones(LENGTH, LENGTH).tril().bool()


def expect_causal(found: Weights, hint: str = "") -> None:
    """Each position takes from itself and all before it, and from nothing else."""
    seen, right = found.seen[0, 0], triangle()
    given = f"{LENGTH} positions"
    expect(
        found.known.all(),
        hint
        or "some positions see nothing, so that their softmax is NaN: is the mask on the wrong triangle, or one off?",
        given=given,
        expected="each position sees itself and those before",
        got="NaN",
    )
    got = "; ".join(
        f"{t + 1} sees {', '.join(str(s + 1) for s in row.nonzero().flatten().tolist()) or 'nothing'}"
        for t, row in enumerate(seen)
    )
    expect(
        not (found.seen & ~right).any(),
        hint or "a position sees what comes after it: mask the upper triangle, with minus infinity, before the softmax",
        given=given,
        expected="each position sees itself and those before",
        got=got,
    )
    expect(
        (found.seen | ~right).all(),
        "a position does not see itself or one before it: the mask is one off",
        given=given,
        expected="each position sees itself and those before",
        got=got,
    )


def expect_scale(c: float, hint: str) -> None:
    expect(
        abs(c * math.sqrt(SIZE) - 1) < 1e-2,
        hint,
        given=f"{HEADS} heads of {SIZE} channels",
        expected=1 / math.sqrt(SIZE),
        got=c,
    )


# ---------------------------------------------------------------------------------------------------------- generation

VOCAB, BLOCK, WIDTH = 11, 4, 24


class NoAttention(nn.Module):
    """In the place of the student's attention, which has criteria of its own: adds nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        self.c_attn, self.c_proj, self.n_head, self.n_embd = nn.Linear(1, 3), nn.Linear(1, 1), 2, WIDTH

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros_like(x)


def _beside_logits(model: nn.Module) -> tuple:
    """What the student's forward returns beside the logits, such as a loss."""
    try:
        with torch.no_grad():
            result = model(torch.arange(BLOCK)[None])
        return tuple(result[1:]) if isinstance(result, tuple) else ()
    except Exception:
        return ()


class Markov:
    """The student's GPT with weights by which each token's logits are a row of a table, whatever came before.

    Args:
        table: [VOCAB, VOCAB], the logits after each token; or [VOCAB], after all tokens.

    Attributes:
        contexts: the tokens that the model was asked about, one tensor a call.
    """

    def __init__(self, part, table: Tensor):
        table = table.expand(VOCAB, VOCAB).float()
        sizes = {"vocab_size": VOCAB, "block_size": BLOCK, "n_head": 2, "n_embd": WIDTH}
        with (
            patch.object(part.gpt, "CausalSelfAttention", NoAttention, create=True),
            torch.random.fork_rng(devices=[]),  # the same weights at each call
        ):
            torch.manual_seed(0)
            self.model = model = part.gpt.GPT(config(part, **sizes)).eval()
        self.contexts: list[Tensor] = []
        if not self._set_weights(table):
            rest = _beside_logits(model)

            def forward(idx: Tensor, *args: Any, **kwargs: Any) -> Any:
                self.contexts.append(idx.detach().clone())
                return (table[idx], *rest) if rest else table[idx]

            model.forward = forward
        self.contexts.clear()

    def _set_weights(self, table: Tensor) -> bool:
        """Whether the model's logits are now those of the table."""
        model = self.model
        try:
            tokens = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == VOCAB]
            heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == VOCAB]
            head = heads[-1]
            with torch.no_grad():
                for module in model.modules():
                    if isinstance(module, (nn.Linear, nn.Embedding)) and module not in (tokens[0], head):
                        for parameter in module.parameters(recurse=False):
                            parameter.zero_()
                head.weight = nn.Parameter(head.weight.detach().clone())  # no longer that of the embedding
                tokens[0].weight.copy_(torch.eye(VOCAB, WIDTH))
                features: list[Tensor] = []
                hook = head.register_forward_pre_hook(lambda module, args: features.append(args[0]))
                model(torch.arange(VOCAB)[:, None])
                hook.remove()
                head.weight.copy_((torch.linalg.pinv(features[0].reshape(VOCAB, WIDTH)) @ table).T)
                if head.bias is not None:
                    head.bias.zero_()
                idx = torch.arange(BLOCK)[None]
                right = torch.allclose(model(idx), table[idx], atol=1e-2)
            tokens[0].register_forward_pre_hook(lambda module, args: self.contexts.append(args[0].detach().clone()))
            return right
        except Exception:
            return False

    def __call__(self, idx: Tensor, count: int, **kwargs: Any) -> Tensor:
        """What the student's `generate` returns; all tokens may be drawn unless the arguments say otherwise."""
        return call_generate(self.model, idx, count, **kwargs)


def call_generate(model: nn.Module, idx: Tensor, count: int, **kwargs: Any) -> Tensor:
    """What the student's `generate` returns. Where it adds nothing, perhaps since it makes too few tokens, it is
    asked for one more, and for as many more as the prompt has. Raises Failure where that adds nothing, either."""
    for asked in (count, count + 1, count + idx.size(1)):
        out = _generated(model, idx, asked, **kwargs)
        expect(isinstance(out, Tensor), "generate returns no tokens: is it implemented?", got=type(out).__name__)
        if not torch.equal(out, idx):
            return out
    raise Failure("generate returns the prompt without a new token: is its loop implemented?")


def _generated(model: nn.Module, idx: Tensor, count: int, **kwargs: Any) -> Any:
    if "top_p" in inspect.signature(model.generate).parameters:
        kwargs.setdefault("top_p", None)
    with torch.no_grad():
        try:
            return model.generate(idx, count, **kwargs)
        except TypeError:  # a top_p of None, where only numbers were thought of
            if "top_p" not in kwargs or kwargs.get("top_k"):
                raise
            return model.generate(idx, count, **{**kwargs, "top_p": 1.0})


def is_exchanged(part) -> bool:
    """Whether `do_sample` True takes the most probable token, and False draws."""
    model = Markov(part, torch.linspace(0, 1, VOCAB))
    idx = torch.zeros(200, 1, dtype=torch.long)
    try:
        drawn, greedy = (model(idx, 1, do_sample=flag)[:, -1].unique() for flag in (True, False))
    except Exception:
        return False  # one of the two breaks off, which costs what is judged by it
    return len(drawn) == 1 and len(greedy) > 1


def shares(part, logits: Tensor, draw: bool = True, rows: int = 4000, **kwargs: Any) -> Tensor:
    """How often each token is generated, [VOCAB], where its logits are these whatever came before."""
    flag = draw != is_exchanged(part)
    idx = torch.arange(rows)[:, None] % VOCAB
    tokens = Markov(part, logits)(idx, 1, do_sample=flag, **kwargs)[:, -1]
    return torch.bincount(tokens, minlength=VOCAB).float() / rows


def far(a: Tensor, b: Tensor) -> bool:
    """Whether two distributions differ by more than 4000 draws can by chance."""
    return bool((a - b).abs().sum() > 0.1)


def in_words(shares: Tensor) -> str:
    return ", ".join(f"{token}: {share:.0%}" for token, share in enumerate(shares.tolist()) if share > 0)


def attempt(function: Callable, hint: str, **values: Any) -> Any:
    """Call, and turn any exception into a Failure."""
    try:
        return function()
    except Failure:
        raise
    except Exception as error:
        if is_gap(error):
            raise
        raise Failure(hint, got=said(error), **values) from error

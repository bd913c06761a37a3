"""The fused way of attention, where a solution has a switch for it. Passed where there is none, or where it needs a
package that is not here.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from course.criterion import Failure, criterion, expect, is_gap, said
from course.gpt_probes import FUSED, LENGTH, Weights, attend, build_attention, expect_scale, softmax_of, triangle


def _fused(
    part, pdrop: float = 0.0, training: bool = False, passes: int = 1, block: int = LENGTH, judged: bool = False
) -> list[Weights]:
    """What the fused way does; nothing where there is none, where it cannot be had here, or, unless its failure is to
    be `judged`, where it breaks off."""
    source = (Path(part.folder) / "gpt.py").read_text(encoding="utf-8", errors="replace")
    if not re.search(rf"\b({'|'.join(FUSED)})\b", source):
        _refuse_gap(part)
        return []
    calls = _Fused()
    try:
        with calls:
            module = build_attention(part, fused=True, pdrop=pdrop, block=block).train(training)
            return [attend(module) for _ in range(passes)]
    except Exception as error:
        if isinstance(error, NotImplementedError) and not str(error):
            raise Failure("the fused way (use_flash_attn) is not implemented") from error
        stands_in = any(
            name.partition(".")[0] in ("flash_attn", "xformers") for name in sys.modules
        )  # returns no tensor
        if not judged or isinstance(error, ImportError) or calls.unavailable or stands_in:
            return []
        if isinstance(error, Failure):
            raise
        raise Failure("the fused way breaks off, while the plain one works", got=said(error)) from error


class _Fused(TorchFunctionMode):
    """Notes whether PyTorch's fused function fails for plain tensors of the same shapes, too."""

    unavailable = False

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        try:
            return func(*args, **(kwargs or {}))
        except RuntimeError:
            plain = [torch.randn(value.shape[-4:]) for value in (*args, *(kwargs or {}).values())
                     if isinstance(value, Tensor)][:3]  # fmt: skip
            try:
                func(*plain, is_causal=True)
            except RuntimeError:
                self.unavailable = True
            raise


def _refuse_gap(part) -> None:
    """Let the exception through that a plain attention raises which is not implemented."""
    try:
        attend(build_attention(part))
    except Exception as error:
        if is_gap(error):
            raise


@criterion("3.2")
def fused_attention_is_causal(part):
    """Also with the fused way, each position sees itself and those before it."""
    for found in _fused(part, judged=True):
        later = found.weights.nan_to_num().where(~triangle(), torch.zeros(())).max().item()
        expect(
            later < 0.03,
            "the fused way sees what comes after: pass is_causal=True",  # it may compute in 16 bits
            expected="weight 0 for what comes after",
            got=later,
        )
    try:
        attend(build_attention(part, block=LENGTH + 4))
        shorter = _fused(part, block=LENGTH + 4, judged=True)
    except Failure as failure:
        hint = "the fused way fails for sequences shorter than block_size: cut its mask to [:, :, :T, :T], or pass "
        raise Failure(hint + "is_causal=True", given=f"block_size {LENGTH + 4}", got=failure.got) from failure
    except Exception:
        return  # the plain way fails, too, which attention_mask_fits_the_sequence tells
    for found, exact in zip(shorter, _fused(part), strict=False):
        expect(
            torch.allclose(found.output.nan_to_num(), exact.output.nan_to_num(), atol=1e-2),
            "the fused way depends on block_size: cut its mask to the sequence's length, [:, :, :T, :T]",
        )


@criterion("3.2")
def fused_attention_scale(part):
    """Also the fused way divides the scores by the square root of a head's size."""
    for found in _fused(part):
        axis, c = softmax_of(found)
        expect(axis in (None, "row"), "the fused way's softmax is over the wrong axis: q, k, v must be [B, nh, T, hs]")
        if axis:
            expect_scale(c, "the fused way scales the scores wrongly: scaled_dot_product_attention does it by itself")


@criterion("3.2")
def fused_attention_has_no_dropout_in_evaluation(part):
    """The fused way drops nothing in evaluation."""
    exact = _fused(part)
    for found in _fused(part, pdrop=0.5, passes=6):
        same = torch.allclose(found.output.nan_to_num(), exact[0].output.nan_to_num(), atol=1e-5)
        expect(same, "the fused way drops weights in evaluation mode as well: pass dropout_p=0 unless self.training")


@criterion("3.2")
def fused_attention_has_dropout(part):
    """The fused way drops weights in training."""
    passes = _fused(part, pdrop=0.5, training=True, passes=6)
    if passes and not any(isinstance(m, torch.nn.Dropout) for m in build_attention(part, fused=True).modules()):
        return
    plain = build_attention(part, pdrop=0.5).train()
    if torch.allclose(*(attend(plain).output.nan_to_num() for _ in range(2))):
        return  # there is none at all, which has its own criterion
    vary = any(not torch.allclose(passes[0].output.nan_to_num(), other.output.nan_to_num()) for other in passes[1:])
    expect(vary or not passes, "the fused way has no dropout in training: pass dropout_p", given="attn_pdrop 0.5")

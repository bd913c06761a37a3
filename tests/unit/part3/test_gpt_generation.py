"""Generation: greedy and sampled, over the end of the context, and with the cache as without it."""

import pytest
import torch

from gpt_models import small_gpt


def greedy_by_hand(model, idx: torch.Tensor, n: int) -> torch.Tensor:
    """The whole context, cropped to block_size, for every token."""
    for _ in range(n):
        logits = model(idx[:, -11:])[:, -1]
        idx = torch.cat([idx, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return idx


@torch.no_grad()
def test_greedy_takes_the_best_token_of_the_last_position(part3):
    model, idx = small_gpt(part3), torch.randint(13, (3, 2))
    found = model.generate(idx, 7)
    assert found.shape == (3, 9) and found.dtype == torch.long
    assert torch.equal(found, greedy_by_hand(model, idx, 7))


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 5, 10, 11, 12, 17])
def test_the_context_is_cropped_to_the_block_size(part3, length):
    """Prompts that reach the block size of 11 at different steps, or are longer from the start."""
    model, idx = small_gpt(part3), torch.randint(13, (2, length))
    assert torch.equal(model.generate(idx, 17), greedy_by_hand(model, idx, 17))


def test_the_prompt_is_not_changed_and_no_gradient_is_kept(part3):
    model, idx = small_gpt(part3), torch.randint(13, (2, 5))
    before, gradients = idx.clone(), []
    model.lm_head.register_forward_hook(lambda *call: gradients.append(torch.is_grad_enabled()))
    found = model.generate(idx, 9, do_sample=True)
    assert torch.equal(idx, before) and torch.equal(found[:, :5], before)
    assert gradients and not any(gradients)


def test_no_dropout_while_generating_and_each_module_keeps_its_mode(part3):
    model, idx = small_gpt(part3, embd_pdrop=0.9, resid_pdrop=0.9, attn_pdrop=0.9), torch.randint(13, (2, 5))
    expected = greedy_by_hand(model.eval(), idx, 5)
    model.train()
    model.transformer.h[0].eval()  # as a frozen layer
    modes = [module.training for module in model.modules()]
    assert torch.equal(model.generate(idx, 5), expected)
    assert [module.training for module in model.modules()] == modes
    model.lm_head.register_forward_hook(lambda *call: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.generate(idx, 5)
    assert [module.training for module in model.modules()] == modes, "also after an error"


# ---------------------------------------------------------------------------- the cache


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("arguments", [{}, {"do_sample": True, "top_k": 7, "top_p": 0.9, "temperature": 1.3}])
def test_with_the_cache_each_token_is_the_same_as_without(part3, fused, dtype, arguments):
    """Over the border of the block size, where every token gets another position, and on a second call."""
    model = small_gpt(part3, fused_attention=fused).to(dtype)
    for length in (1, 4, 11, 12):
        idx = torch.randint(13, (3, length))
        with_cache, again, without = (
            model.generate(idx, 19, **arguments, generator=torch.Generator().manual_seed(5), use_cache=use_cache)
            for use_cache in (True, True, False)
        )
        assert torch.equal(with_cache, without)
        assert torch.equal(with_cache, again)


def test_each_token_is_computed_once_until_the_block_size_is_reached(part3):
    """What the first layer sees: with 4 tokens to begin with, 4 and then 1 for each step; from 11 on always 11."""
    model, seen = small_gpt(part3), []
    model.transformer.h[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    model.generate(torch.randint(13, (2, 4)), 11)
    assert seen == [4, 1, 1, 1, 1, 1, 1, 1, 11, 11, 11]


def test_nothing_to_add_and_nothing_to_begin_with(part3):
    model, idx = small_gpt(part3), torch.randint(13, (2, 3))
    found = model.generate(idx, 0)
    assert torch.equal(found, idx) and found.data_ptr() != idx.data_ptr()
    with pytest.raises(ValueError, match=r"at least one token to begin with, not \[2, 0\]"):
        model.generate(idx[:, :0], 5)
    with pytest.raises(ValueError, match="max_new_tokens is out of range"):
        model.generate(idx, -1)

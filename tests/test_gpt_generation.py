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


@torch.no_grad()
def test_sampling_draws_from_the_softmax_of_the_last_position(part3):
    """The first new token of many equal rows, within five standard deviations."""
    model, n = small_gpt(part3), 20_000
    row = torch.tensor([[3, 1, 4]])
    tokens = model.generate(row.expand(n, -1), 1, do_sample=True)[:, -1]
    p = model(row)[0, -1].softmax(dim=-1)
    found = torch.bincount(tokens, minlength=13) / n
    assert ((found - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()


@torch.no_grad()
def test_temperature_and_top_k_reach_the_draws(part3):
    model, n = small_gpt(part3), 20_000
    row = torch.tensor([[3, 1, 4]])
    tokens = model.generate(row.expand(n, -1), 1, temperature=0.5, do_sample=True, top_k=3)[:, -1]
    logits, best = model(row)[0, -1].topk(3)
    p = torch.zeros(13).index_put((best,), (logits / 0.5).softmax(dim=-1))
    found = torch.bincount(tokens, minlength=13) / n
    assert ((found - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()


def test_the_prompt_is_not_changed_and_no_gradient_is_kept(part3):
    model, idx = small_gpt(part3), torch.randint(13, (2, 5))
    before, gradients = idx.clone(), []
    model.lm_head.register_forward_hook(lambda *call: gradients.append(torch.is_grad_enabled()))
    found = model.generate(idx, 9, do_sample=True)
    assert torch.equal(idx, before) and torch.equal(found[:, :5], before)
    assert gradients and not any(gradients)


@pytest.mark.parametrize("training", [True, False])
def test_no_dropout_while_generating_and_the_mode_is_restored(part3, training):
    model, idx = small_gpt(part3, embd_pdrop=0.9, resid_pdrop=0.9, attn_pdrop=0.9), torch.randint(13, (2, 5))
    expected = greedy_by_hand(model.eval(), idx, 5)
    model.train(training)
    assert torch.equal(model.generate(idx, 5), expected)
    assert model.training == training and model.transformer.drop.training == training
    with pytest.raises(ValueError, match="temperature"):
        model.generate(idx, 5, temperature=-1, do_sample=True)
    assert model.training == training, "also after an error"


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


@torch.no_grad()
def test_features_of_pieces_are_those_of_the_whole(part3):
    """The prompt in pieces of 3, 1 and 5 tokens against all at once."""
    for fused in (True, False):
        model, idx = small_gpt(part3, fused_attention=fused).double(), torch.randint(13, (2, 9))
        cache = [part3.gpt.LayerCache(11) for _ in range(2)]
        pieces = [model._features(piece, cache) for piece in idx.split([3, 1, 5], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model._features(idx))


def test_each_token_is_computed_once_until_the_block_size_is_reached(part3):
    """What the first layer sees: with 4 tokens to begin with, 4 and then 1 for each step; from 11 on always 11."""
    model, seen = small_gpt(part3), []
    model.transformer.h[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    model.generate(torch.randint(13, (2, 4)), 11)
    assert seen == [4, 1, 1, 1, 1, 1, 1, 1, 11, 11, 11]


# ---------------------------------------------------------------------------- stop, and stream


def test_a_row_ends_with_a_stop_sequence(part3):
    """The sequences are taken from what the rows greedily say. A stop sequence in the prompt ends nothing."""
    model = small_gpt(part3)
    idx = torch.tensor([[1], [2], [3]])
    free = model.generate(idx, 9, do_sample=True, generator=torch.Generator().manual_seed(1))
    stop = [free[0, 3:5].tolist(), free[1, 2:3].tolist()]
    found = model.generate(
        idx, 9, do_sample=True, generator=torch.Generator().manual_seed(1), stop=[*stop, [1], [2, 3]]
    )

    def end(row: list[int], sequences: list[list[int]]) -> int:
        ends = (t for t in range(2, 11) for s in sequences if row[max(1, t - len(s)) : t] == s)
        return min(ends, default=10)

    ends = [end(row, [*stop, [1], [2, 3]]) for row in free.tolist()]
    assert found.shape[1] == max(ends), "it goes on to the end of the last row"
    for row, expected, t in zip(found.tolist(), free.tolist(), ends, strict=True):
        assert row[:t] == expected[:t]
        assert set(row[t:]) <= {row[t - 1]}, "what follows repeats the last token"
    assert min(ends) < 10


def test_stream_yields_what_generate_returns_and_may_be_closed(part3):
    model, idx = small_gpt(part3).train(), torch.randint(13, (2, 3))
    assert torch.equal(torch.stack(list(model.stream(idx, 6)), dim=1), model.generate(idx, 6)[:, 3:])
    stream = model.stream(idx, 6)
    next(stream)
    stream.close()
    assert model.training


def test_nothing_to_add_and_nothing_to_begin_with(part3):
    model, idx = small_gpt(part3), torch.randint(13, (2, 3))
    found = model.generate(idx, 0)
    assert torch.equal(found, idx) and found.data_ptr() != idx.data_ptr()
    with pytest.raises(ValueError, match=r"at least one token to begin with, not \[2, 0\]"):
        model.generate(idx[:, :0], 5)
    with pytest.raises(ValueError, match="max_new_tokens must not be negative"):
        model.generate(idx, -1)

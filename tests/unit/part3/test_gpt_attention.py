"""Causal self-attention: its values, and that the future has no part in them."""

import math

import pytest
import torch

from gpt_models import attention_config, small_gpt


def attention(part3, **changes):
    return part3.gpt.CausalSelfAttention(attention_config(**changes)).eval()


def set_weights(module, c_attn: torch.Tensor, c_proj: torch.Tensor) -> None:
    with torch.no_grad():
        module.c_attn.weight.copy_(c_attn)
        module.c_proj.weight.copy_(c_proj)
        module.c_attn.bias.zero_()
        module.c_proj.bias.zero_()


def test_values_by_hand(part3):
    """One head of 4 channels, so scores are divided by 2. Queries and keys are the inputs times 2 sqrt(log 2) in the
    first channel alone, so that a score is 2 log 2 x_q x_k; values are the inputs."""
    module = attention(part3, n_embd=4, n_head=1)
    scale = 2 * math.sqrt(math.log(2)) * torch.diag(torch.tensor([1.0, 0, 0, 0]))
    set_weights(module, torch.cat([scale, scale, torch.eye(4)]), torch.eye(4))
    x = torch.zeros(1, 3, 4)
    x[0, :, 0] = torch.tensor([1.0, 0.0, 1.0])
    x[0, :, 1] = torch.tensor([3.0, 5.0, 7.0])
    # Scores: the third position has 2 log 2 with the first and with itself, 0 with the second: weights 4, 1, 4 of 9.
    # The second, whose query is 0, weighs itself and the first alike. The first has only itself.
    expected = torch.tensor([[[1.0, 3, 0, 0], [0.5, 4, 0, 0], [8 / 9, (4 * 3 + 5 + 4 * 7) / 9, 0, 0]]])
    torch.testing.assert_close(module(x), expected)


def test_heads_are_independent_slices_of_the_channels(part3):
    """Each of 3 heads against an attention computed for it alone, from the equation."""
    module, x = attention(part3), torch.randn(2, 7, 15)
    q, k, v = (x @ module.c_attn.weight.T + module.c_attn.bias).split(15, dim=-1)
    heads = []
    for i in range(3):
        channels = slice(5 * i, 5 * i + 5)
        scores = torch.einsum("btc,bsc->bts", q[..., channels], k[..., channels]) / math.sqrt(5)
        weights = torch.zeros(2, 7, 7)
        for t in range(7):
            weights[:, t, : t + 1] = scores[:, t, : t + 1].softmax(dim=-1)
        heads.append(weights @ v[..., channels])
    expected = torch.cat(heads, dim=-1) @ module.c_proj.weight.T + module.c_proj.bias
    torch.testing.assert_close(module(x), expected)


def test_shape_and_mask(part3):
    module = attention(part3)
    assert module(torch.randn(2, 7, 15)).shape == (2, 7, 15)
    assert module.mask.shape[-2:] == (11, 11)
    assert torch.equal(module.mask.reshape(11, 11).bool(), torch.ones(11, 11).tril().bool())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_no_future_token_changes_an_earlier_logit(part3, scale, fused):
    """Bit for bit, also where scores are so large that a finite number in the place of minus infinity would show."""
    model = small_gpt(part3, fused_attention=fused)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
        idx = torch.randint(13, (3, 11))
        before = model(idx)
        assert before.isfinite().all()
        for t in range(1, 11):
            other = idx.clone()
            other[:, t:] = (other[:, t:] + torch.randint(1, 13, (3, 11 - t))) % 13
            after = model(other)
            assert torch.equal(after[:, :t], before[:, :t])
            assert not torch.equal(after[:, t], before[:, t]), "a token has a part in its own position"


def test_dropout_acts_on_the_weights_after_the_softmax(part3):
    """Where all values are 1, a head's channels are all the sum of the weights that are left: equal, and not 1. Dropout
    of scores would leave 1, and dropout of values or results would make channels differ."""
    module = attention(part3, attn_pdrop=0.5).train()
    with torch.no_grad():
        module.c_attn.weight[30:].zero_()
        module.c_attn.bias[30:].fill_(1.0)
        module.c_proj.weight.copy_(torch.eye(15))
        module.c_proj.bias.zero_()
        heads = module(torch.randn(4, 11, 15)).view(4, 11, 3, 5)
    torch.testing.assert_close(heads, heads[..., :1].expand_as(heads))
    assert ((heads - 1).abs() > 0.01).float().mean() > 0.9


# ---------------------------------------------------------------------------- the written-out and the fused way


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_way_equals_the_written_out_one(part3, dtype):
    """In outputs and in all gradients."""
    module, x = attention(part3).to(dtype), torch.randn(2, 7, 15, dtype=dtype)
    direction = torch.randn(2, 7, 15, dtype=dtype)
    found = []
    for fused in (False, True):
        module.fused = fused
        module.zero_grad()
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        (y * direction).sum().backward()
        found.append([y.detach(), leaf.grad, *(parameter.grad.clone() for parameter in module.parameters())])
    for written_out, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, written_out)


@pytest.mark.parametrize("fused", [False, True])
def test_with_dropout_the_expectation_is_the_result_without(part3, fused):
    """The output is linear in the weights, of which dropout keeps the expectation. The mean of 4,000 draws is compared
    within five of its standard errors."""
    module = attention(part3, attn_pdrop=0.3, fused_attention=fused)
    x = torch.randn(1, 7, 15)
    with torch.no_grad():
        expected = module(x)
        draws = module.train()(x.expand(4000, -1, -1))
    error = draws.std(dim=0) / math.sqrt(4000)
    assert ((draws.mean(dim=0) - expected[0]).abs() <= 5 * error + 1e-6).all()
    assert (error[1:] > 0.001).any(), "dropout is on"


def test_weights_sum_to_one_over_what_is_visible(part3):
    """The last 3 queries of 7 positions."""
    module, seen = attention(part3, fused_attention=False), []
    module.attn_dropout.register_forward_hook(lambda dropout, inputs, output: seen.append(inputs[0]))
    x, cache = torch.randn(2, 7, 15), part3.gpt.LayerCache(7)
    module(x[:, :4], cache)
    module(x[:, 4:], cache)
    weights = seen[1].detach()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 3))
    for row, visible in enumerate((5, 6, 7)):
        assert (weights[..., row, :visible] > 0).all()
        assert (weights[..., row, visible:] == 0).all()


def test_one_mask_for_all_layers(part3):
    """Also on another device, and outside of the state dict; an attention layer alone has its own."""
    model = small_gpt(part3)
    for moved in (model, model.to("meta")):
        masks = {id(block.attn.mask) for block in moved.transformer.h}
        assert len(masks) == 1 and len(list(moved.buffers())) == 1
        assert not any("mask" in name for name in moved.state_dict())


def test_heads_that_do_not_divide_the_channels_are_refused(part3):
    with pytest.raises(ValueError, match="n_embd 15 is not a multiple of n_head 4"):
        attention(part3, n_head=4)

"""Part 3's dropout: PyTorch's meaning, from fewer random numbers."""

import math

import pytest
import torch


@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_drops_with_probability_p_and_keeps_the_mean(part3, p):
    """Of 10^6 ones, within five standard deviations; what is kept is 1 / (1 - p)."""
    n = 1_000_003  # no multiple of four
    y = part3.gpt.Dropout(p)(torch.ones(n))
    share = (y == 0).double().mean().item()
    assert abs(share - p) <= 5 * math.sqrt(p * (1 - p) / n) + 1e-5
    kept = y[y != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=3e-4, atol=0)


def test_elements_are_independent(part3):
    """Four elements share a draw of 64 bits: neighbours at any of these distances are dropped together as often as
    independent ones, p^2."""
    dropped = (part3.gpt.Dropout(0.3)(torch.ones(1_000_000)) == 0).double()
    for distance in (1, 2, 3, 4, 5, 8):
        together = (dropped[:-distance] * dropped[distance:]).mean().item()
        assert abs(together - 0.09) <= 5 * math.sqrt(0.09 * 0.91 / 1e6) * 1.5


def test_the_gradient_goes_through_what_was_kept(part3):
    x = torch.randn(7, 11, dtype=torch.float64, requires_grad=True)
    y = part3.gpt.Dropout(0.4)(x)
    direction = torch.randn(7, 11, dtype=torch.float64)
    (y * direction).sum().backward()
    torch.testing.assert_close(x.grad, direction * (y / x).detach())


def test_shape_and_number_format_stay_and_nothing_is_done_in_place(part3):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = torch.ones(3, 5, 7, dtype=dtype)
        y = part3.gpt.Dropout(0.5)(x)
        assert y.shape == x.shape and y.dtype == dtype
        assert (x == 1).all() and (y == 0).any()


def test_off_in_evaluation_and_extremes(part3):
    x = torch.randn(101)
    assert torch.equal(part3.gpt.Dropout(0.5).eval()(x), x)
    assert torch.equal(part3.gpt.Dropout(0.0)(x), x)
    assert (part3.gpt.Dropout(1.0)(x) == 0).all()


def test_the_seed_decides(part3):
    layer, x = part3.gpt.Dropout(0.5), torch.ones(101)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(layer(x))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])

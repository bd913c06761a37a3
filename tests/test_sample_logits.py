"""The choice of the next token: a pure function of logits."""

import math

import pytest
import torch

LOGITS = [0.0, math.log(2), math.log(3), math.log(4), -math.inf]  # probabilities 0.1, 0.2, 0.3, 0.4, 0


def frequencies(part3, n: int = 20_000, logits=None, **arguments) -> torch.Tensor:
    """How often each token is drawn, for n rows of the same logits."""
    row = torch.tensor(LOGITS if logits is None else logits)
    tokens = part3.sampling.sample_logits(row.expand(n, -1), **arguments)
    assert tokens.shape == (n,) and tokens.dtype == torch.long
    return torch.bincount(tokens, minlength=len(row)) / n


def assert_frequencies(found: torch.Tensor, expected: list[float], n: int = 20_000) -> None:
    """Within five standard deviations of a binomial; what has probability 0 is never drawn."""
    for frequency, p in zip(found.tolist(), expected, strict=True):
        assert abs(frequency - p) <= 5 * math.sqrt(p * (1 - p) / n), (found, expected)


def test_draws_from_the_softmax(part3):
    assert_frequencies(frequencies(part3), [0.1, 0.2, 0.3, 0.4, 0])


def test_temperature_divides_the_logits(part3):
    """At 0.5 probabilities are squared: 1, 4, 9, 16 of 30."""
    assert_frequencies(frequencies(part3, temperature=0.5), [1 / 30, 4 / 30, 9 / 30, 16 / 30, 0])


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"do_sample": False}, {"temperature": 1e-300}, {"top_k": 1}])
def test_greedy(part3, arguments):
    assert_frequencies(frequencies(part3, **arguments), [0, 0, 0, 1, 0])


def test_top_k(part3):
    assert_frequencies(frequencies(part3, top_k=2), [0, 0, 3 / 7, 4 / 7, 0])


def test_top_k_above_the_vocabulary_is_the_vocabulary(part3):
    assert_frequencies(frequencies(part3, top_k=99), [0.1, 0.2, 0.3, 0.4, 0])


def test_ties_at_the_border_keep_exactly_k(part3):
    found = frequencies(part3, logits=[0.0] * 7, top_k=3)
    assert (found > 0).sum() == 3
    assert_frequencies(found[found > 0], [1 / 3] * 3)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.39, [0, 0, 0, 1, 0]),
        (0.4, [0, 0, 0, 1, 0]),
        (0.41, [0, 0, 3 / 7, 4 / 7, 0]),
        (0.71, [0, 2 / 9, 3 / 9, 4 / 9, 0]),
        (1.0, [0.1, 0.2, 0.3, 0.4, 0]),
    ],
)
def test_top_p_is_the_smallest_set_that_reaches_it(part3, top_p, expected):
    found = frequencies(part3, logits=[float(x) for x in torch.tensor(LOGITS, dtype=torch.float64)], top_p=top_p)
    assert_frequencies(found, expected)


def test_top_p_acts_on_what_top_k_leaves(part3):
    """Of the three best, with 2, 3, 4 of 9, the best two have 7/9 = 0.78."""
    assert_frequencies(frequencies(part3, top_k=3, top_p=0.75), [0, 0, 3 / 7, 4 / 7, 0])


def test_rows_are_independent(part3):
    logits = torch.tensor([[5.0, 0, 0], [0, 5, 0], [0, 0, 5]])
    assert part3.sampling.sample_logits(logits, do_sample=False).tolist() == [0, 1, 2]
    assert part3.sampling.sample_logits(1000 * logits, top_k=2, top_p=0.9).tolist() == [0, 1, 2]


def test_logits_are_not_changed(part3):
    logits = torch.randn(3, 7)
    before = logits.clone()
    part3.sampling.sample_logits(logits, 0.7, True, 3, 0.8)
    assert torch.equal(logits, before)


def test_a_generator_makes_draws_reproducible_and_leaves_the_global_one_alone(part3):
    logits = torch.randn(50, 101)
    state = torch.get_rng_state()
    first, second = (part3.sampling.sample_logits(logits, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    other = part3.sampling.sample_logits(logits, generator=torch.Generator().manual_seed(8))
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_number_formats(part3, dtype):
    """Half formats have 8 or 11 bits: probabilities are computed from them in float32."""
    logits = torch.tensor(LOGITS).to(dtype).expand(20_000, -1)
    found = torch.bincount(part3.sampling.sample_logits(logits), minlength=5) / 20_000
    assert_frequencies(found, torch.tensor(LOGITS).to(dtype).double().softmax(0).tolist())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature must be a number of at least 0, not -0.1"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"top_k": 0}, "top_k must be at least 1, not 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, not 1.1"),
    ],
)
def test_what_makes_no_sense_is_refused(part3, arguments, message):
    with pytest.raises(ValueError, match=message):
        part3.sampling.sample_logits(torch.zeros(1, 5), **arguments)


def test_ends_with(part3):
    tokens = torch.tensor([[1, 2, 3], [2, 3, 1], [3, 3, 3]])
    assert part3.sampling.ends_with(tokens, [[2, 3], [3, 3]]).tolist() == [True, False, True]
    assert part3.sampling.ends_with(tokens, []).tolist() == [False, False, False]
    assert part3.sampling.ends_with(tokens, [[], [9, 1, 2, 3]]).tolist() == [False, False, False]

"""The choice of the next token, by a model whose logits are known."""

import math

import pytest
import torch

from gpt_models import new_gpt

LOGITS = [0.0, math.log(2), math.log(3), math.log(4), -math.inf]  # probabilities 0.1, 0.2, 0.3, 0.4, 0


def fixed_model(part3, logits: torch.Tensor):
    """A GPT with these logits, [V], after any token."""
    model = new_gpt(part3, n_layer=1, n_head=1, n_embd=2, vocab_size=len(logits), block_size=3).eval()
    model.lm_head = Logits(logits)
    return model


class Logits(torch.nn.Module):
    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(*x.shape[:-1], -1)


def draw(part3, logits, n: int = 20_000, do_sample: bool = True, **arguments) -> torch.Tensor:
    """Tokens for n rows of the same logits."""
    tokens = fixed_model(part3, torch.as_tensor(logits)).generate(torch.zeros(n, 1).long(), 1, do_sample=do_sample,
                                                                  **arguments)  # fmt: skip
    assert tokens.shape == (n, 2) and tokens.dtype == torch.long
    return tokens[:, 1]


def frequencies(part3, n: int = 20_000, logits=LOGITS, **arguments) -> torch.Tensor:
    """How often each token is drawn, for n rows of the same logits."""
    return torch.bincount(draw(part3, logits, n, **arguments), minlength=len(logits)) / n


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
    found = frequencies(part3, logits=torch.tensor(LOGITS, dtype=torch.float64), top_p=top_p)
    assert_frequencies(found, expected)


def test_top_p_acts_on_what_top_k_leaves(part3):
    """Of the three best, with 2, 3, 4 of 9, the best two have 7/9 = 0.78."""
    assert_frequencies(frequencies(part3, top_k=3, top_p=0.75), [0, 0, 3 / 7, 4 / 7, 0])


def test_tiny_temperatures_and_probabilities_keep_the_best_token(part3):
    for tiny in (1e-6, 1e-40, 1e-300):
        assert_frequencies(frequencies(part3, 100, temperature=tiny), [0, 0, 0, 1, 0], 100)
        assert_frequencies(frequencies(part3, 100, top_p=tiny), [0, 0, 0, 1, 0], 100)


def test_rows_are_independent_and_logits_are_not_changed(part3):
    logits = 1000 * torch.tensor([[5.0, 0, 0], [0, 5, 0], [0, 0, 5]])
    before, sampling = logits.clone(), part3.sampling
    kept = sampling.keep_top_p(sampling.keep_top_k(sampling.divide_by_temperature(logits, 0.7), 2), 0.9)
    assert torch.equal(kept.softmax(dim=-1), torch.eye(3))
    assert torch.equal(logits, before)


def test_a_generator_makes_draws_reproducible_and_leaves_the_global_one_alone(part3):
    model, state, draws = fixed_model(part3, torch.randn(101)), torch.get_rng_state(), []
    for seed in (7, 7, 8):
        generator = torch.Generator().manual_seed(seed)
        draws.append(model.generate(torch.zeros(50, 1).long(), 1, do_sample=True, generator=generator))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_number_formats(part3, dtype):
    """Half formats have 8 or 11 bits: probabilities are computed from them in float32."""
    logits = torch.tensor(LOGITS).to(dtype)
    assert_frequencies(frequencies(part3, logits=logits), logits.double().softmax(0).tolist())


@pytest.mark.parametrize(
    "arguments",
    [{"temperature": -0.1}, {"temperature": math.nan}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}],
)
def test_what_makes_no_sense_is_refused(part3, arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is out of range"):
        draw(part3, LOGITS, 1, **arguments)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("do_sample", [True, False])
def test_logits_that_are_not_finite_are_an_error(part3, wrong, do_sample):
    with pytest.raises(part3.run.InputError, match="logits are not finite"):
        draw(part3, [0.0, wrong, 1.0], 3, do_sample)

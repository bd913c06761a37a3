"""Texts from a GPT: the function `generate`."""

import pytest
import torch
from tokenizers import Tokenizer

from gpt_models import byte_pairs, chain_model, small_gpt

LETTERS = "\nabcde"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def letters(part3):
    """A model of six characters, and its vocabulary."""
    return small_gpt(part3, vocab_size=6), part3.vocabulary.Characters(LETTERS)


@pytest.fixture
def bytes_vocabulary(part3):
    return part3.vocabulary.BytePairs(Tokenizer.from_str(byte_pairs()))


# ------------------------------------------------------------------------------------------------------- the function


def test_texts_begin_with_the_prompt_and_have_the_length_asked_for(part3, letters):
    model, vocabulary = letters
    for prompt, count, steps in (("ab", 3, 7), ("e\nd", 1, 19), ("abcde" * 5, 2, 5), ("c", 5, 0)):
        texts = part3.generate.generate(model, "gpt-nano", prompt, count, steps, vocabulary=vocabulary, verbose=False)
        assert len(texts) == count
        assert all(text.startswith(prompt) and len(text) == len(prompt) + steps for text in texts)


def test_sampled_texts_differ_and_the_generator_decides_them(part3, letters):
    model, vocabulary = letters

    def draw(seed):
        return part3.generate.generate(model, "gpt-nano", "ab", 5, 23, vocabulary=vocabulary, verbose=False,
                                       generator=seeded(seed), temperature=2.0)  # fmt: skip

    assert draw(1) == draw(1) != draw(2)
    assert len(set(draw(1))) == 5


def test_greedy_texts_are_the_tokens_of_the_model(part3, letters):
    model, vocabulary = letters
    texts = part3.generate.generate(model, "gpt-nano", "bad", 3, 17, False, vocabulary=vocabulary, verbose=False)
    tokens = model.generate(torch.tensor([[2, 1, 4]]), 17)[0].tolist()
    assert texts == ["".join(LETTERS[token] for token in tokens)] * 3


def test_an_empty_prompt_begins_a_text(part3, letters, bytes_vocabulary):
    """After a line break for characters, and after END_OF_TEXT, which is one token, for GPT-2; neither is shown."""
    model, vocabulary = letters
    arguments = (5, 11, True, None, 2.0, "cpu", False)
    texts = part3.generate.generate(model, "gpt-nano", "", *arguments, vocabulary=vocabulary, generator=seeded(3))
    after = part3.generate.generate(model, "gpt-nano", "\n", *arguments, vocabulary=vocabulary, generator=seeded(3))
    assert [f"\n{text}" for text in texts] == after

    tokens = bytes_vocabulary.encode("<|endoftext|>the")
    assert tokens[0] == 0 and len(tokens) > 1
    chain = chain_model(part3, tokens, vocab_size=283)
    texts = part3.generate.generate(
        chain, "gpt2", "", 2, len(tokens) - 1, False, vocabulary=bytes_vocabulary, verbose=False
    )
    assert texts == ["the", "the"]


def test_texts_are_printed_unless_it_is_quiet(part3, letters, capsys):
    model, vocabulary = letters
    texts = part3.generate.generate(model, "gpt-nano", "ab", 3, 7, vocabulary=vocabulary)
    assert capsys.readouterr().out == "".join(f"{text}\n{'-' * 80}\n" for text in texts)
    part3.generate.generate(model, "gpt-nano", "ab", 3, 7, vocabulary=vocabulary, verbose=False)
    assert capsys.readouterr().out == ""


def test_the_vocabulary_of_a_folder_is_found(part3, tmp_path, letters):
    model, vocabulary = letters
    part3.pretrained.save(model, tmp_path, vocabulary)
    texts = part3.generate.generate(model, tmp_path, "bad", 1, 17, False, verbose=False)
    assert texts == part3.generate.generate(model, "", "bad", 1, 17, False, vocabulary=vocabulary, verbose=False)


@pytest.mark.parametrize(
    "arguments",
    [{"num_samples": 0}, {"n_steps": -1}, {"temperature": -0.5}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}],
)
def test_arguments_out_of_range(part3, letters, arguments):
    model, vocabulary = letters
    with pytest.raises(ValueError, match=r"num_samples|out of range"):
        part3.generate.generate(model, "", "ab", vocabulary=vocabulary, verbose=False, **arguments)


# ---------------------------------------------------------------------------------------------------------------- stop


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ([], "klmnopqrst"),
        (["p"], "klmno"),
        (["nop"], "klm"),
        (["k"], ""),
        (["rs", "mn"], "kl"),
        (["p", "nop"], "klm"),
        (["ijk"], "klmnopqrst"),  # in the prompt and beyond it, but not in what was added
        (["j"], "klmnopqrst"),  # in the prompt alone
        (["stu"], "klmnopqrst"),  # it would have come later
        (["t"], "klmnopqrs"),
    ],
)
def test_a_text_ends_before_a_stop_string(part3, stop, expected):
    """A model that says the alphabet."""
    alphabet = "".join(map(chr, range(ord("a"), ord("z") + 1)))
    vocabulary = part3.vocabulary.Characters(alphabet)
    model = chain_model(part3, list(range(26)), vocab_size=26)
    texts = part3.generate.generate(model, "", "hij", 2, 10, False, vocabulary=vocabulary, verbose=False, stop=stop)
    assert texts == ["hij" + expected] * 2


def test_each_of_many_texts_stops_by_itself(part3, letters):
    """The same draws with and without stop strings: a text ends before the first string in it, wherever others end."""
    model, vocabulary = letters
    stop = ["bcd", "c", "ea", "a\nb"]

    def draw(stop):
        return part3.generate.generate(model, "", "a", 101, 29, vocabulary=vocabulary, verbose=False, stop=stop,
                                       generator=seeded(5), temperature=9.0)  # fmt: skip

    whole = [text[1:] for text in draw([])]
    expected = ["a" + text[: min(text.find(string) for string in stop if string in text)] for text in whole
                if any(string in text for string in stop)]  # fmt: skip
    assert len(expected) > 50
    assert [text for text in draw(stop) if len(text) < 30] == expected

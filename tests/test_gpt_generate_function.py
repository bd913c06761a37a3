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


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(part3, letters, training):
    model, vocabulary = letters
    model.train(training)

    def fail(piece):
        assert not model.training
        raise RuntimeError("the terminal is gone")

    for stop in ((), ("a", "b", "c")):
        part3.generate.generate(model, "", "ab", 2, 7, vocabulary=vocabulary, verbose=False, stop=stop)
        assert model.training == training
    with pytest.raises(RuntimeError, match="terminal") as caught:
        part3.generate.generate(model, "", "ab", 2, 7, vocabulary=vocabulary, verbose=False, show=fail)
    assert model.training == training
    assert len(caught.traceback) > 1, "what the error keeps alive does not delay it"


@pytest.mark.parametrize(
    "arguments",
    [{"num_samples": 0}, {"n_steps": -1}, {"temperature": -0.5}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}],
)
def test_arguments_out_of_range(part3, letters, arguments):
    model, vocabulary = letters
    with pytest.raises(ValueError, match=r"must|num_samples"):
        part3.generate.generate(model, "", "ab", vocabulary=vocabulary, verbose=False, **arguments)


def test_an_unknown_character_is_named(part3, letters):
    model, vocabulary = letters
    with pytest.raises(part3.inputs.InputError, match="'é'"):
        part3.generate.generate(model, "", "abéd", vocabulary=vocabulary, verbose=False)


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


def test_generation_ends_with_the_last_text(part3):
    vocabulary = part3.vocabulary.Characters("abcdefghijklm")
    model = chain_model(part3, list(range(13)), vocab_size=13)
    steps = []
    model.transformer.ln_f.register_forward_hook(lambda *args: steps.append(1))
    part3.generate.generate(model, "", "a", 1, 11, False, vocabulary=vocabulary, verbose=False, stop=["ef"])
    assert len(steps) == 5, "b, c, d, e, f"


def test_a_stop_string_across_the_borders_of_tokens(part3, bytes_vocabulary):
    """It begins within one token and ends within another one."""
    tokens = bytes_vocabulary.encode("x the cat")
    pieces = [bytes_vocabulary.decode([token]) for token in tokens]
    assert pieces[:3] == ["x", " the", " cat"]
    model = chain_model(part3, tokens, vocab_size=283)
    for stop, expected in (("he c", "x t"), ("e ca", "x th"), ("at", "x the c"), ("x", "x the cat")):
        texts = part3.generate.generate(
            model, "", "x", 1, len(tokens) - 1, False, vocabulary=bytes_vocabulary, verbose=False, stop=[stop]
        )
        assert texts == [expected]


def test_each_of_many_texts_stops_by_itself(part3, letters):
    """The same draws with and without stop strings. One row's text does not depend on how long the others take."""
    model, vocabulary = letters
    stop = ["bcd", "c", "ea", "a\nb"]

    def draw(stop):
        return part3.generate.generate(model, "", "a", 101, 29, vocabulary=vocabulary, verbose=False, stop=stop,
                                       generator=seeded(5), temperature=9.0)  # fmt: skip

    def until_a_stop(text):
        for end in range(len(text) + 1):
            places = [text[:end].index(string) for string in stop if string in text[:end]]
            if places:
                return text[: min(places)]
        return text

    whole = [text[1:] for text in draw([])]
    expected = [until_a_stop(text) for text in whole]
    assert any(text[len(shorter) - 1 :].startswith("bcd") for text, shorter in zip(whole, expected, strict=True)), (
        "where c ends a text, one that goes on would have bcd"
    )
    assert [text[1:] for text in draw(stop)] == expected


# ---------------------------------------------------------------------------------------------------------------- show

RULE = "\n" + "-" * 80 + "\n"


def shown(part3, *args, **kwargs) -> tuple[list[str], list[str]]:
    """Pieces that were shown, without the rule after them, and the texts."""
    pieces = []
    texts = part3.generate.generate(*args, verbose=False, show=pieces.append, **kwargs)
    assert pieces.pop() == RULE
    return [piece for piece in pieces if piece], texts


def test_the_first_text_is_shown_as_it_comes(part3, letters):
    model, vocabulary = letters
    pieces, texts = shown(part3, model, "", "ab", 3, 7, vocabulary=vocabulary)
    assert "".join(pieces) == texts[0]
    assert pieces[0] == f"ab{texts[0][2]}" and [len(piece) for piece in pieces[1:]] == [1] * 6


def test_no_half_character_is_shown(part3, bytes_vocabulary):
    """Of characters of one to four bytes, each token being one byte."""
    text = "xé€b😀中y"
    tokens = bytes_vocabulary.encode(text)
    assert len(tokens) == 1 + 2 + 3 + 1 + 4 + 3 + 1
    pieces, texts = shown(part3, chain_model(part3, tokens, 283, block_size=17), "", "x", 1, len(tokens) - 1, False,
                          vocabulary=bytes_vocabulary)  # fmt: skip
    assert texts == [text]
    assert pieces == ["x", "é", "€", "b", "😀", "中", "y"]


def test_what_is_shown_is_the_text_also_where_bytes_make_no_character(part3, bytes_vocabulary):
    """Random bytes, of which many are no UTF-8."""
    model = small_gpt(part3, vocab_size=283)
    broken = 0
    for seed in range(11):
        pieces, texts = shown(part3, model, "", "the", 2, 23, top_k=None, vocabulary=bytes_vocabulary, temperature=5.0,
                              generator=seeded(seed), stop=["a", "t "])  # fmt: skip
        assert "".join(pieces) == texts[0]
        assert not any(piece.endswith("\ufffd") for piece in pieces[:-1])
        broken += "\ufffd" in texts[0]
    assert broken > 3, "else it shows nothing"


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("né", ["xm"]),  # what begins like the stop string is held back, also while é is half there
        ("mné€", ["x"]),
        ("nk", ["xm", "né", "€", "s", "t"]),
        ("mnés", ["x", "mné€", "s", "t"]),
        ("tu", ["xm", "n", "é", "€", "s", "t"]),  # the end of the text shows that it does not come
    ],
)
def test_no_part_of_a_stop_string_is_shown(part3, bytes_vocabulary, stop, expected):
    tokens = bytes_vocabulary.encode("xmné€st")
    assert len(tokens) == 10
    model = chain_model(part3, tokens, 283)
    pieces, texts = shown(part3, model, "", "x", 1, 9, False, vocabulary=bytes_vocabulary, stop=[stop])
    assert pieces == expected
    assert texts == ["".join(expected)]

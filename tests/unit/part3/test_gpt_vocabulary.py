"""Text to tokens and back, with transformers and tokenizers as the oracle."""

import json
import shutil

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gpt_models import byte_pairs, small_gpt

SAMPLES = {
    "words": "Hello world! It's 2024, and they'll say: don't.",
    "spaces": "  two  before,\tone tab\t\tand two,\n\nlines \r\n and the end   ",
    "accents": "éàü ÑŒß — “quoted” … ½",
    "combining": "e\u0301 a\u0308\u0323 n\u0303o and \u1100\u1161\u11a8",
    "scripts": "中文字符 日本語のテキスト 한국어 русский עברית العربية हिन्दी",
    "emoji": "😀 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇳🇱",
    "odd": "\u00a0\u200b\ufeff\u2028 ﬁ Ⅷ \x00\x07\x7f \U0010ffff",
    "end": "one<|endoftext|>two <|endoftext|> three\n<|endoftext|>\n<|endoftext|>",
    "nearly the end": "<|endoftext|<|endoftext|>|> <| endoftext |>",
    "code": "def f(x):\n    return {'a': x ** 2}  # 100_000\n",
    "nothing": "",
}
END = 50256


def test_what_a_file_stores_of_an_earlier_use_has_no_effect(part3, gpt2_tokenizer_dir, theirs, tmp_path):
    tokenizer = Tokenizer.from_file(str(gpt2_tokenizer_dir / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = part3.vocabulary.read_vocabulary(tmp_path)
    for text in ("Hello world! It's 2024, and they'll say: don't.", "a"):
        assert vocabulary.encode(text) == theirs(text)["input_ids"]


@pytest.fixture(scope="module")
def layouts(gpt2_tokenizer_dir, tmp_path_factory):
    """The folder with tokenizer.json, and one with the two older files alone."""
    older = tmp_path_factory.mktemp("older")
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(gpt2_tokenizer_dir / name, older / name)
    return {"tokenizer.json": gpt2_tokenizer_dir, "vocab.json and merges.txt": older}


@pytest.fixture(scope="module")
def theirs(gpt2_tokenizer_dir):
    return AutoTokenizer.from_pretrained(gpt2_tokenizer_dir, use_fast=True)


@pytest.fixture(scope="module", params=["tokenizer.json", "vocab.json and merges.txt"])
def folder(request, layouts):
    return layouts[request.param]


@pytest.fixture(scope="module")
def read(_parts, folder):
    """The vocabulary of GPT-2, as this repository reads it."""
    with _parts["part3"].imported() as part3:
        return part3.vocabulary.read_vocabulary(folder)


@pytest.mark.parametrize("name", SAMPLES)
def test_tokens_are_those_of_transformers(read, theirs, name):
    text = SAMPLES[name]
    tokens = read.encode(text)
    assert tokens == theirs(text).input_ids
    assert tokens.count(END) == text.count("<|endoftext|>")
    assert read.decode(tokens) == text


def test_tokens_that_are_known_by_heart(read):
    assert read.vocab_size == 50257
    assert read.encode("Hello world") == [15496, 995]
    assert read.encode("<|endoftext|>") == [END]
    assert read.beginning == "<|endoftext|>"
    assert read.decode([464, 3797]) == "The cat"


def test_half_a_character_is_no_error(read):
    tokens = read.encode("😀")
    assert len(tokens) > 1
    assert read.decode(tokens[:-1]).strip("\ufffd") == ""
    assert read.decode(tokens) == "😀"


def test_the_state_of_byte_pairs(part3, read):
    again = part3.vocabulary.from_state(json.loads(json.dumps(read.state())))
    assert type(again).__name__ == "BytePairs" and again.vocab_size == 50257
    for text in SAMPLES.values():
        assert again.encode(text) == read.encode(text)


def test_byte_pairs_are_handed_on_to_transformers(part3, tmp_path):
    """A tokenizer of one's own, with the model that belongs to it."""
    ours = part3.vocabulary.BytePairs(Tokenizer.from_str(byte_pairs()))
    assert ours.vocab_size == 283
    part3.pretrained.save(small_gpt(part3, vocab_size=283), tmp_path, ours)
    theirs, again = AutoTokenizer.from_pretrained(tmp_path), part3.vocabulary.read_vocabulary(tmp_path)
    for text in SAMPLES.values():
        tokens = ours.encode(text)
        assert tokens == theirs(text).input_ids == again.encode(text)
        assert ours.decode(tokens) == theirs.decode(tokens) == text


# ---------------------------------------------------------------------------------------------------------- characters


def test_characters_are_numbered_in_sorted_order(part3):
    vocabulary = part3.vocabulary.Characters.of("hello, world\n")
    assert vocabulary.characters == "\n ,dehlorw"
    assert vocabulary.vocab_size == 10
    assert vocabulary.encode("hold\n") == [5, 7, 6, 3, 0]
    assert vocabulary.decode([9, 7, 8, 3]) == "word"
    assert vocabulary.encode("") == [] and vocabulary.decode([]) == ""


def test_a_text_begins_after_a_line_break_where_there_is_one(part3):
    assert part3.vocabulary.Characters.of("b\n\ta").beginning == "\n"
    assert part3.vocabulary.Characters.of("cab").beginning == "a"


@pytest.mark.parametrize(("text", "name"), [("heé", "'é'"), ("h\t", r"'\\t'"), ("he'", '"\'"'), ("h😀e", "'😀'")])
def test_an_unknown_character_is_named(part3, text, name):
    with pytest.raises(part3.run.InputError, match=name):
        part3.vocabulary.Characters("eh").encode(text)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "nothing"])
def test_characters_are_read_back_by_other_libraries(part3, tmp_path, name):
    """The tokens of tokenizers and transformers, from the file alone and from the folder of a model."""
    text = SAMPLES[name]
    ours = part3.vocabulary.Characters.of(text)
    tokens = [sorted(set(text)).index(character) for character in text]
    assert ours.encode(text) == tokens
    part3.pretrained.save(small_gpt(part3, vocab_size=ours.vocab_size), tmp_path, ours)

    file = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    assert tokenizer.encode(text).ids == tokens and tokenizer.decode(tokens) == text
    for theirs in (PreTrainedTokenizerFast(tokenizer_file=str(file)), AutoTokenizer.from_pretrained(tmp_path)):
        assert theirs(text).input_ids == tokens
        assert theirs.decode(tokens) == text

    again = part3.vocabulary.read_vocabulary(tmp_path)
    assert (type(again).__name__, again.characters) == ("Characters", ours.characters)


def test_characters_in_another_order_keep_it(part3, tmp_path):
    (tmp_path / "tokenizer.json").write_text(part3.vocabulary.Characters("cab").to_json())
    assert part3.vocabulary.read_vocabulary(tmp_path).encode("abc") == [1, 2, 0]


def test_the_state_of_characters(part3):
    ours = part3.vocabulary.Characters.of(SAMPLES["combining"])
    again = part3.vocabulary.from_state(json.loads(json.dumps(ours.state())))
    assert again.characters == ours.characters
    assert again.encode(SAMPLES["combining"]) == ours.encode(SAMPLES["combining"])


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no tokenizer: put tokenizer.json, or vocab.json and merges.txt, into it"),
        ({"vocab.json": "{}"}, "has no tokenizer"),
        ({"tokenizer.json": ""}, "tokenizer.json is damaged"),
        ({"tokenizer.json": '{"version": "1.0", "model"'}, "tokenizer.json is damaged"),
        ({"tokenizer.json": "[3, 5]"}, "tokenizer.json is damaged"),
        ({"vocab.json": '{"a": 0', "merges.txt": "#version: 0.2\n"}, "vocab.json is damaged"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "#version: 0.2\nx y\n"}, "vocab.json is damaged"),
    ],
)
def test_a_folder_without_a_sound_tokenizer(part3, tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(part3.run.InputError, match=message) as caught:
        part3.vocabulary.read_vocabulary(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_such_folder(part3, tmp_path):
    with pytest.raises(part3.run.InputError, match="nowhere has no tokenizer"):
        part3.pretrained.load_vocabulary(tmp_path / "nowhere")

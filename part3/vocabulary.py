"""Text to tokens and back: characters, and GPT-2's byte-level byte-pair encoding."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.implementations import ByteLevelBPETokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from run import InputError

END_OF_TEXT = "<|endoftext|>"


class Characters:
    """Every character is a token, by its place in `characters`, which are sorted and without repetition."""

    def __init__(self, characters: str):
        self.characters = characters
        self.string_to_index = {character: i for i, character in enumerate(characters)}
        self.vocab_size = len(characters)

    @classmethod
    def of(cls, text: str) -> Characters:
        """The vocabulary of all characters of a text."""
        return cls("".join(sorted(set(text))))

    @property
    def beginning(self) -> str:
        """Replaces an empty prompt: a line break if the vocabulary has one, else its first character."""
        return "\n" if "\n" in self.string_to_index else self.characters[0]

    def encode(self, text: str) -> list[int]:
        """Tokens of a text. Raises InputError if a character is not in the vocabulary."""
        try:
            return [self.string_to_index[character] for character in text]
        except KeyError as error:
            raise InputError(f"the model does not know the character {error.args[0]!r}: it was trained on a text "
                             "without it, so leave it out") from None  # fmt: skip

    def decode(self, tokens: list[int]) -> str:
        """Text of tokens."""
        return "".join(self.characters[token] for token in tokens)

    def to_json(self) -> str:
        """The same vocabulary in the format of the library tokenizers, which transformers reads."""
        tokenizer = Tokenizer(WordLevel(dict(self.string_to_index), unk_token=None))
        tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
        tokenizer.decoder = Fuse()
        return tokenizer.to_str()

    def state(self) -> dict[str, str]:
        """The content of a checkpoint from which `from_state` restores this vocabulary."""
        return {"characters": self.characters}


class BytePairs:
    """GPT-2's vocabulary (Radford et al., 2019): tokens are sequences of bytes, mostly pieces of words, so that every
    text can be encoded."""

    beginning = END_OF_TEXT

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        tokenizer.no_truncation()  # which a file may hold from an earlier use
        tokenizer.no_padding()
        self.vocab_size = tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Tokens of a text; `<|endoftext|>` in it is one token. Raises InputError if it is not valid Unicode."""
        try:
            return self.tokenizer.encode(text.encode().decode()).ids
        except UnicodeEncodeError as error:  # of lone surrogates, into which Python turns bytes that are not UTF-8
            raise InputError(f"the text is not in UTF-8 after {error.start} characters: give it in UTF-8") from error

    def decode(self, tokens: list[int]) -> str:
        """Text of tokens; bytes that are not valid UTF-8 become U+FFFD."""
        return self.tokenizer.decode(tokens, skip_special_tokens=False)

    def to_json(self) -> str:
        return self.tokenizer.to_str()

    def state(self) -> dict[str, str]:
        """The content of a checkpoint from which `from_state` restores this vocabulary."""
        return {"tokenizer_json": self.to_json()}


Vocabulary = Characters | BytePairs


def from_state(state: dict[str, str]) -> Vocabulary:
    """The vocabulary whose `state()` this is."""
    if "characters" in state:
        return Characters(state["characters"])
    return BytePairs(Tokenizer.from_str(state["tokenizer_json"]))


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary in a folder that has `tokenizer.json`, or GPT-2's `vocab.json` and `merges.txt`. Raises InputError
    if they are missing or damaged."""
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            tokenizer = Tokenizer.from_file(str(path))
            if isinstance(tokenizer.model, WordLevel):
                characters = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
                if any(len(character) != 1 for character in characters):
                    raise ValueError("its tokens are whole words")
                return Characters("".join(characters))
            return BytePairs(tokenizer)
        path = folder / "vocab.json"
        if path.is_file() and (folder / "merges.txt").is_file():
            files = (str(path), str(folder / "merges.txt"))
            tokenizer = Tokenizer.from_str(ByteLevelBPETokenizer.from_file(*files).to_str())
            tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False)])
            return BytePairs(tokenizer)
    except Exception as error:  # the library raises bare Exceptions
        raise InputError(f"{path} is damaged or no tokenizer ({error}): get it again") from error
    raise InputError(f"{folder} has no tokenizer: put tokenizer.json, or vocab.json and merges.txt, into it")

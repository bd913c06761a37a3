"""Texts: loaded or downloaded, and cut into windows of tokens for training and validation."""

from __future__ import annotations

import argparse
import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from run import InputError
from vocabulary import Characters, Vocabulary

TINY_SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
TINY_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
# An e-book of Project Gutenberg: the book lies between the line that ends the header and the line that begins the
# licence.
GUTENBERG = re.compile(
    r"^\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*?\*\*\*\s*$(?P<book>.*?)"
    r"(?:^End of (?:The )?Project Gutenberg[^\n]*\s*)?^\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)


class TextDataset(Dataset):
    """All windows of block_size tokens of a text. The target of a window is the window one token later.

    Args:
        config: the run's flags, kept as an attribute; may be None.
        datafile_path: a text in UTF-8.
        block_size: tokens in a window.
        vocabulary: maps text to tokens; by default the text's own characters.
        text: used instead of the file's content.

    Attributes:
        vocab_size: number of tokens in the vocabulary.
        string_to_index, index_to_string: from characters to tokens and back, if the tokens are characters.

    Raises:
        InputError: the file cannot be read, or its text has fewer than block_size + 1 tokens.
    """

    def __init__(self, config: argparse.Namespace | None, datafile_path: str | Path | None, block_size: int = 128, *,
                 vocabulary: Vocabulary | None = None, text: str | None = None):  # fmt: skip
        self.config, self.block_size = config, block_size
        text = read_text(Path(datafile_path)) if text is None else text
        self.vocabulary = Characters.of(text) if vocabulary is None else vocabulary
        self.vocab_size = self.vocabulary.vocab_size
        if isinstance(self.vocabulary, Characters):
            self.string_to_index = self.vocabulary.string_to_index
            self.index_to_string = dict(enumerate(self.vocabulary.characters))
        self.data = torch.cat(
            [torch.tensor(self.vocabulary.encode(piece), dtype=torch.int32) for piece in pieces(text)]
        )
        if len(self.data) <= block_size:
            raise InputError(f"a text of {len(self.data)} tokens is too short for windows of {block_size}: take a "
                             "longer text, or lower --block_size")  # fmt: skip
        self.tokens_per_character = len(self.data) / len(text)
        self.windows = self.data.unfold(0, block_size + 1, 1)  # a view: [len(self), block_size + 1]

    def to(self, device: torch.device) -> None:
        """Move the tokens to a device; batches are there, too, then."""
        self.data = self.data.to(device)
        self.windows = self.data.unfold(0, self.block_size + 1, 1)

    def __len__(self) -> int:
        return len(self.data) - self.block_size

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Window i and the window one token later, each long [block_size]."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"window {i} of {len(self)}")
        window = self.windows[i].long()
        return window[:-1], window[1:]

    def __getitems__(self, indices: list[int] | Tensor) -> tuple[Tensor, Tensor]:
        """A batch by one index operation: windows and targets, each long [B, block_size]."""
        index = torch.as_tensor(indices)
        if self.data.is_cuda:  # from page-locked memory, so that nobody waits for the copy
            index = index.pin_memory().to(self.data.device, non_blocking=True)
        windows = self.windows[index].long()
        return windows[:, :-1], windows[:, 1:]


def pieces(text: str, size: int = 1_000_000) -> Iterator[str]:
    """A text in pieces of about `size` characters, since a tokenizer needs a hundred times the memory of its text. They
    are cut before a line break and a character that is no white space, where tokens of GPT-2 end."""
    start = 0
    for cut in re.finditer(r"(?=\n\S)", text):
        if cut.start() - start >= size:
            yield text[start : cut.start()]
            start = cut.start()
    yield text[start:]


class Batches(Sampler):
    """Indices of the windows in the batches of consecutive training steps.

    In an epoch, each window comes once, in a random order that depends on the seed and the epoch alone, so that a
    resumed run has the same batches. An incomplete batch at the end of an epoch is left out. Several processes share
    the windows of each step.

    Args:
        num_windows: size of the data set.
        batch_size: windows per step and process.
        first_step: returns the training step of the first batch, counted from 0; called for each iteration.
        num_steps: number of batches.
        seed: of the order.
        rank, world_size: number of this process, counted from 0, and of all.
    """

    def __init__(self, num_windows: int, batch_size: int, first_step: Callable[[], int], num_steps: int, seed: int,
                 rank: int = 0, world_size: int = 1):  # fmt: skip
        self.num_windows, self.batch_size, self.seed = num_windows, batch_size, seed
        self.first_step, self.num_steps = first_step, num_steps
        self.rank, self.world_size = rank, world_size
        self.steps_per_epoch = steps_per_epoch(num_windows, batch_size * world_size)

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[Tensor]:
        epoch = order = None
        first = self.first_step()
        for step in range(first, first + self.num_steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                order = torch.randperm(self.num_windows, generator=generator)
            start = (step % self.steps_per_epoch * self.world_size + self.rank) * self.batch_size
            yield order[start : start + self.batch_size]


def steps_per_epoch(num_windows: int, batch_size: int) -> int:
    """Full batches in a pass over the windows. Raises InputError if there is none."""
    if num_windows < batch_size:
        raise InputError(f"the text has {num_windows} windows for training, fewer than a batch of {batch_size}: take a "
                         "longer text, or lower --train_batch_size")  # fmt: skip
    return num_windows // batch_size


def planned_steps(args: argparse.Namespace, num_windows: int, world_size: int) -> int:
    """Steps of the whole training: `num_epochs` passes over the text, or `max_steps` if that is less."""
    steps = args.num_epochs * steps_per_epoch(num_windows, args.train_batch_size * world_size)
    return min(steps, args.max_steps or steps)


def identity_collate(batch):
    """Collate function for a data set that already returns batches."""
    return batch


def round_loader(dataset: TextDataset, args: argparse.Namespace, trainer) -> DataLoader:
    """Loader of the training batches (x, y), each long [batch_size, block_size], up to the next validation. A trainer
    that does not reload it before each round continues with the next windows, too, but not only to the last step."""
    left = planned_steps(args, len(dataset), trainer.world_size) - trainer.global_step
    batches = Batches(len(dataset), args.train_batch_size, lambda: trainer.global_step,
                      min(left, args.val_every_n_steps), args.seed, trainer.global_rank,
                      trainer.world_size)  # fmt: skip
    pin_memory = trainer.strategy.root_device.type == "cuda" and not dataset.data.is_cuda
    return DataLoader(dataset, batch_sampler=batches, num_workers=args.num_workers, collate_fn=identity_collate,
                      pin_memory=pin_memory, timeout=120 * (args.num_workers > 0))  # fmt: skip


def val_loader(dataset: TextDataset, batch_size: int) -> DataLoader:
    """Loader of adjacent windows: each token but the first is a target once; an incomplete last window is left out."""
    starts = range(0, len(dataset), dataset.block_size)
    return DataLoader(dataset, batch_size=batch_size, sampler=starts, collate_fn=identity_collate)


def make_datasets(args: argparse.Namespace, vocabulary: Vocabulary, text: str) -> tuple[TextDataset, TextDataset]:
    """The first nine tenths of a text for training, the last for validation. Raises InputError if the text is too
    short, or consists of one character."""
    if vocabulary.vocab_size < 2:
        raise InputError(f"the text consists of {text[0]!r} alone, so that there is nothing to learn: take another one")
    border = len(text) - round(len(text) * 0.1)
    train_set = TextDataset(args, None, args.block_size, vocabulary=vocabulary, text=text[:border])
    try:
        return train_set, TextDataset(args, None, args.block_size, vocabulary=vocabulary, text=text[border:])
    except InputError as error:
        raise InputError(f"the last tenth of the text, which is for validation, is too short: {error}") from error


def load_text(txt_file: str, data_dir: Path) -> str:
    """The text that `--txt_file` asks for: a path, or `pydoc`, or `tiny_shakespeare`, which is downloaded to
    `data_dir/text` if it is missing. Raises InputError if it cannot be had."""
    if txt_file == "pydoc":
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    if txt_file == "tiny_shakespeare":
        return tiny_shakespeare(data_dir / "text" / "tiny_shakespeare.txt")
    return without_licence(read_text(Path(txt_file)))


def read_text(path: Path) -> str:
    """Content of a text file. Raises InputError if it cannot be read, is empty, or is not UTF-8."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): give the path of a text file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text in UTF-8: save it as UTF-8, or give another file") from error
    if not text:
        raise InputError(f"{path} is empty: give the path of a text")
    return text


def without_licence(text: str) -> str:
    """Text of Project Gutenberg's e-books without their header and licence, which would distort training and
    validation. Any other text is returned unchanged."""
    books = [found["book"].strip() + "\n" for found in GUTENBERG.finditer(text)]
    if not books:
        return text
    left = "\n\n".join(books)
    print(f"left out Project Gutenberg's header and licence: {len(text) - len(left):,} characters")
    return left


def tiny_shakespeare(path: Path, url: str = TINY_SHAKESPEARE) -> str:
    """Shakespeare's plays, which are downloaded if they are missing. Raises InputError if the file has a wrong
    checksum, or cannot be read, downloaded or written."""
    timeout = socket.getdefaulttimeout()
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            socket.setdefaulttimeout(10)  # seconds
            with FileLock(path.with_name(".lock")):  # other trainings may need the file, too
                if not path.exists():
                    print(f"downloading {url}")
                    torch.hub.download_url_to_file(url, str(path), TINY_SHAKESPEARE_SHA256, progress=False)
    except Exception as error:  # of the network, the server, the checksum or the disk
        raise InputError(f"tiny_shakespeare cannot be downloaded from {url} into {path.parent} "
                         f"({innermost_cause(error)}): put it there as {path.name}, name the directory that holds "
                         "text/ with --data_dir, or train with --txt_file pydoc, which needs no network") \
            from error  # fmt: skip
    finally:
        socket.setdefaulttimeout(timeout)
    # Some copies lack the line break at the end. With one added, a run can be resumed with either copy.
    text = read_text(path).rstrip("\n") + "\n"
    if hashlib.sha256(text.encode()).hexdigest() != TINY_SHAKESPEARE_SHA256:
        raise InputError(f"{path} is not tiny_shakespeare, its checksum differs: remove it, and it is downloaded "
                         "again; or give its path to --txt_file to train on it as it is")  # fmt: skip
    return text


def innermost_cause(error: BaseException) -> str:
    """The first line of the message of the error that led to this one."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")

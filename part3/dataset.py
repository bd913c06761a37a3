"""Texts: loaded or downloaded, and cut into windows of tokens for training and validation."""

from __future__ import annotations

import argparse
import codecs
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from download import DownloadError, describe_wrong_content, fetch, remove_leftovers, store
from gpu import keep_on_gpu, on_device
from inputs import InputError
from vocabulary import Characters, Vocabulary

TINY_SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
# SHA-256 of the text without the line break that ends the file, which some copies lack.
TINY_SHAKESPEARE_SHA256 = "53493bf304b639aba6a47400da75c58ce32372b378fd2cd9d16ee987aeb12e4e"
# An e-book of Project Gutenberg: the book lies between the line that ends the header and the line that begins the
# licence.
GUTENBERG = re.compile(
    r"^\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*?\*\*\*\s*$(?P<book>.*?)"
    r"(?:^End of (?:The )?Project Gutenberg[^\n]*\s*)?^\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
log = logging.getLogger("part3")


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
        string_to_index, index_to_string: dictionaries from characters to tokens and back; only if the tokens are
            characters.
        tokens_per_character: 1 if the tokens are characters.

    Raises:
        InputError: the file cannot be read, or its text has fewer than block_size + 1 tokens.
    """

    def __init__(
        self,
        config: argparse.Namespace | None,
        datafile_path: str | Path | None,
        block_size: int = 128,
        *,
        vocabulary: Vocabulary | None = None,
        text: str | None = None,
    ):
        self.config, self.block_size = config, block_size
        text = read_text(Path(datafile_path)) if text is None else text
        self.vocabulary = Characters.of(text) if vocabulary is None else vocabulary
        self.vocab_size = self.vocabulary.vocab_size
        if isinstance(self.vocabulary, Characters):
            self.string_to_index = self.vocabulary.string_to_index
            self.index_to_string = dict(enumerate(self.vocabulary.characters))
        self.data = torch.tensor(self.vocabulary.encode(text), dtype=torch.int32)
        if len(self.data) <= block_size:
            raise InputError(
                f"a text of {len(self.data)} tokens is too short for windows of {block_size}: take a longer text, or "
                "lower --block_size"
            )
        self.tokens_per_character = len(self.data) / len(text)
        self.windows = self.data.unfold(0, block_size + 1, 1)  # a view: [len(self), block_size + 1]

    @property
    def nbytes(self) -> int:
        """Memory that the tokens take, in bytes."""
        return self.data.nbytes

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.data.device

    def to(self, device: torch.device) -> None:
        """Move the tokens to a device; batches are then made there."""
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
        windows = self.windows[on_device(torch.as_tensor(indices), self.device)].long()
        return windows[:, :-1], windows[:, 1:]


def split(text: str, fraction: float = 0.1) -> tuple[str, str]:
    """Split a text: its last `fraction` is for validation, the rest for training."""
    border = len(text) - round(len(text) * fraction)
    return text[:border], text[border:]


class Batches(Sampler):
    """Indices of the windows in the batches of consecutive training steps.

    In an epoch, each window comes once, in a random order that depends only on the seed and the epoch. The number of a
    step determines its place in that order, so a resumed run draws the same batches as an uninterrupted one. An
    incomplete batch at the end of an epoch is left out. Several processes share the windows of each step.

    Args:
        num_windows: size of the data set.
        batch_size: windows per step and process.
        first_step: training step of the first batch, counted from 0; or a function that returns it, called at the
            start of each iteration.
        num_steps: number of batches.
        seed: seed of the order.
        rank, world_size: number of this process, counted from 0, and number of processes.
    """

    def __init__(self, num_windows: int, batch_size: int, first_step: int | Callable[[], int], num_steps: int,
                 seed: int, rank: int = 0, world_size: int = 1):  # fmt: skip
        self.num_windows, self.batch_size, self.seed = num_windows, batch_size, seed
        self.first_step, self.num_steps = first_step, num_steps
        self.rank, self.world_size = rank, world_size
        self.steps_per_epoch = steps_per_epoch(num_windows, batch_size * world_size)

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[Tensor]:
        epoch = order = None
        first = self.first_step() if callable(self.first_step) else self.first_step
        for step in range(first, first + self.num_steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                order = torch.randperm(self.num_windows, generator=generator)
            start = (step % self.steps_per_epoch * self.world_size + self.rank) * self.batch_size
            yield order[start : start + self.batch_size]


def steps_per_epoch(num_windows: int, batch_size: int) -> int:
    """Full batches in a pass over the windows.

    Raises:
        InputError: the text has fewer windows than a batch.
    """
    if num_windows < batch_size:
        raise InputError(
            f"the text has {num_windows} windows for training, fewer than a batch of {batch_size}: take a longer text, "
            "or lower --train_batch_size"
        )
    return num_windows // batch_size


def planned_steps(config: argparse.Namespace, num_windows: int, world_size: int) -> int:
    """Steps of the whole training: `num_epochs` passes over the text, or `max_steps` if that is less."""
    steps = config.num_epochs * steps_per_epoch(num_windows, config.train_batch_size * world_size)
    return min(steps, config.max_steps or steps)


def identity_collate(batch):
    """Return the batch unchanged: the data set already makes whole batches."""
    return batch


def train_loader(dataset: TextDataset, batches: Batches, num_workers: int = 0, pin_memory: bool = False) -> DataLoader:
    """Loader of training batches (x, y), each long [batch_size, block_size]. With `pin_memory` they lie in page-locked
    memory, from which a CUDA device copies while it computes."""
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=identity_collate, pin_memory=pin_memory
    )


def round_loader(dataset: TextDataset, config: argparse.Namespace, trainer) -> DataLoader:
    """Loader of the next round's batches, from a data set that stays on the GPU if it fits. A trainer that reloads it
    before each round ends after the planned steps; any other trainer continues with the next windows, round after
    round."""
    left = planned_steps(config, len(dataset), trainer.world_size) - trainer.global_step
    batches = Batches(len(dataset), config.train_batch_size, lambda: trainer.global_step,
                      min(left, config.val_every_n_steps), config.seed, trainer.global_rank,
                      trainer.world_size)  # fmt: skip
    device = trainer.strategy.root_device
    resident = keep_on_gpu(dataset, device, config.num_workers)
    return train_loader(dataset, batches, config.num_workers, pin_memory=device.type == "cuda" and not resident)


def val_loader(dataset: TextDataset, batch_size: int) -> DataLoader:
    """Loader of adjacent windows: each token but the first is a target once; an incomplete last window is left out."""
    starts = range(0, len(dataset), dataset.block_size)
    return DataLoader(dataset, batch_size=batch_size, sampler=starts, collate_fn=identity_collate)


def read_text(path: Path) -> str:
    """Content of a text file in UTF-8.

    Raises:
        InputError: it cannot be read, is empty, or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): give the path of a text file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text in UTF-8: save it as UTF-8, or give another file") from error
    if not text:
        raise InputError(f"{path} is empty: give the path of a text")
    return text


def load_text(txt_file: str, data_dir: Path) -> str:
    """The text that the flag `--txt_file` asks for, without the licence of Project Gutenberg's e-books.

    Args:
        txt_file: a path, or `tiny_shakespeare`, or `pydoc`.
        data_dir: directory with `text/tiny_shakespeare.txt`; the file is downloaded there if it is missing.

    Raises:
        InputError: the text cannot be read or downloaded.
    """
    if txt_file == "pydoc":
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    if txt_file == "tiny_shakespeare":
        # Some copies lack the line break at the end. With one added, a run can be resumed with either copy.
        return read_text(tiny_shakespeare(data_dir / "text" / "tiny_shakespeare.txt")).rstrip("\n") + "\n"
    return without_licence(read_text(Path(txt_file)))


def without_licence(text: str) -> str:
    """Text of Project Gutenberg's e-books without their header and licence, which would distort training and
    validation. Any other text is returned unchanged."""
    books = [found["book"].strip() + "\n" for found in GUTENBERG.finditer(text)]
    if not books:
        return text
    left = "\n\n".join(books)
    log.info("left out Project Gutenberg's header and licence: %s characters", f"{len(text) - len(left):,}")
    return left


def tiny_shakespeare(path: Path, url: str = TINY_SHAKESPEARE) -> Path:
    """Path of Shakespeare's plays, which are downloaded if they are missing and always verified by checksum.

    Raises:
        InputError: the file has a wrong checksum, or cannot be read, downloaded or written.
    """
    remove_leftovers(path.parent)
    if os.path.isfile(path):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path} ({error.strerror}): change its permissions") from error
        if not _is_tiny_shakespeare(content):
            raise InputError(f"{path} is not tiny_shakespeare, its checksum differs: remove it, and it is downloaded "
                             "again; or give its path to --txt_file to train on it as it is")  # fmt: skip
        return path
    try:
        log.info("downloading %s", url)
        content = fetch(url)
    except DownloadError as error:
        raise InputError(
            f"{path} does not exist, and {url} cannot be downloaded ({error}): put the file "
            "there, or train with --txt_file pydoc, which needs no network"
        ) from error
    if not _is_tiny_shakespeare(content):
        raise InputError(f"what came from {url} is not tiny_shakespeare "
                         f"({describe_wrong_content(content, url)}): try again later, or put the file at "
                         f"{path}")  # fmt: skip
    try:
        store(path, content)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): give another --data_dir") from error
    return path


def _is_tiny_shakespeare(content: bytes) -> bool:
    """Whether the content is tiny_shakespeare; line ends and a byte-order mark do not matter."""
    content = content.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
    return hashlib.sha256(content.rstrip(b"\n")).hexdigest() == TINY_SHAKESPEARE_SHA256

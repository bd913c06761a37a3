"""Continue prompts with a trained GPT: `python generate.py --help` lists the flags."""

import sys
from pathlib import Path

if __name__ == "__main__":  # flags first, since importing PyTorch takes seconds
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # for `python -m part3.generate` and `python -P`
    from cli import start
    from generate_inputs import parse_generate_args

    ARGS = start(parse_generate_args)

import argparse
import os
from collections.abc import Callable, Sequence

import torch

from cli import run_command
from generate_inputs import parse_generate_args
from gpt import GPT
from inputs import LOG_DIR, find_checkpoint, resolve_path
from pretrained import load_vocabulary, load_with_vocabulary
from processes import explained_failures
from run_folder import load_gpt
from vocabulary import Vocabulary

RULE = "-" * 80


def generate(
    model: GPT,
    model_type: str | Path,
    prompt: str = "",
    num_samples: int = 10,
    n_steps: int = 20,
    do_sample: bool = True,
    top_k: int | None = 50,
    temperature: float = 1.0,
    device: str | torch.device = "cpu",
    verbose: bool = True,
    *,
    top_p: float | None = None,
    stop: Sequence[str] = (),
    vocabulary: Vocabulary | None = None,
    generator: torch.Generator | None = None,
    show: Callable[[str], None] | None = None,
) -> list[str]:
    """Continue a prompt.

    Args:
        model: a `GPT`; it is moved to `device`.
        model_type: a published name or a folder, whose vocabulary is used unless `vocabulary` is given.
        prompt: an empty one means `<|endoftext|>`, after which GPT-2 begins a text; for characters, a line break.
        num_samples: how many continuations.
        n_steps: tokens to add.
        do_sample, top_k, temperature, top_p, generator: as in `sampling.sample_logits`.
        device: where to compute.
        verbose: print the texts.
        stop: a text ends before these strings, as soon as what was added has one of them.
        vocabulary: of the model.
        show: is handed the first text piece by piece as it comes.

    Returns:
        The texts, each beginning with the prompt.

    Raises:
        InputError: the prompt has a character that the vocabulary lacks, or the vocabulary cannot be had.
        ValueError: an argument is out of range.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, not {num_samples}")
    vocabulary = load_vocabulary(model_type) if vocabulary is None else vocabulary
    tokens = vocabulary.encode(prompt or vocabulary.beginning)
    model.to(device)
    idx = torch.tensor([tokens], device=device).expand(num_samples, -1)  # (num_samples, T)
    added, texts, ended = [[] for _ in idx], ["" for _ in idx], [False for _ in idx]
    screen = _Screen(prompt, stop, show)
    stream = model.stream(idx, n_steps, temperature, do_sample, top_k, top_p=top_p, generator=generator)
    try:
        for step in stream:
            for i, token in enumerate(step.tolist()):
                if ended[i]:
                    continue
                added[i].append(token)
                if stop or (show and i == 0):
                    texts[i] = vocabulary.decode(added[i])
                if (end := _cut(texts[i], stop)) is not None:
                    texts[i], ended[i] = texts[i][:end], True
            screen.update(texts[0])
            if all(ended):
                break
    finally:
        stream.close()  # which gives the model its mode back
    texts = [prompt + (texts[i] if ended[i] else vocabulary.decode(row)) for i, row in enumerate(added)]
    screen.finish(texts[0])
    if verbose:
        for text in texts[1 if show else 0 :]:
            print(f"{text}\n{RULE}")
    return texts


def _cut(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins; None without one."""
    places = [text.find(string) for string in stop if string in text]
    return min(places, default=None)


class _Screen:
    """Hands on what is certain of a growing text: neither half a character nor what may become a stop string."""

    def __init__(self, prompt: str, stop: Sequence[str], show: Callable[[str], None] | None):
        self.prompt, self.stop, self.show, self.shown = prompt, stop, show, ""

    def update(self, text: str) -> None:
        if self.show is None:
            return
        text = text.rstrip("\ufffd")  # what the bytes of half a character are decoded to
        longest = max(map(len, self.stop), default=0)
        for end in range(max(0, len(text) - longest), len(text)):
            if any(string.startswith(text[end:]) for string in self.stop):
                text = text[:end]
                break
        self._show(self.prompt + text)

    def finish(self, text: str) -> None:
        if self.show:
            self._show(text)
            self.show(f"\n{RULE}\n")

    def _show(self, text: str) -> None:
        if text.startswith(self.shown):
            self.show(text[len(self.shown) :])
            self.shown = text


def load_model(args: argparse.Namespace) -> tuple[GPT, Vocabulary]:
    """Model and vocabulary that the flags name.

    Raises:
        InputError: they cannot be had.
    """
    dtype = getattr(torch, args.dtype)
    if args.checkpoint is None or os.path.isfile(resolve_path(args.checkpoint) / "config.json"):
        place = args.model_type if args.checkpoint is None else resolve_path(args.checkpoint)
        return load_with_vocabulary(GPT, place, dtype)
    model, vocabulary, _ = load_gpt(find_checkpoint(args.checkpoint, resolve_path(args.log_dir, LOG_DIR), "best"))
    return model.to(dtype), vocabulary


def run(args: argparse.Namespace) -> list[str]:
    """Print the texts that the flags ask for, as long as somebody reads them; returns them."""
    with explained_failures(lower="--num_samples or --n_steps"):
        return _run(args)


def _run(args: argparse.Namespace) -> list[str]:
    model, vocabulary = load_model(args)
    for prompt in args.prompt:
        vocabulary.encode(prompt)  # an unknown character is reported before anything is generated
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(args.seed)
    greedy = args.greedy or args.temperature == 0
    show = (lambda piece: print(piece, end="", flush=True)) if sys.stdout.isatty() else None
    texts = []
    for prompt in args.prompt:
        if getattr(sys.stdout, "lost", False):
            break
        texts += generate(model, args.model_type, prompt, 1 if greedy else args.num_samples, args.n_steps, not greedy,
                          args.top_k or None, args.temperature, device, top_p=args.top_p if args.top_p < 1 else None,
                          stop=args.stop, vocabulary=vocabulary, generator=generator, show=show)  # fmt: skip
    return texts


def main(argv: list[str] | argparse.Namespace | None = None) -> int:
    """Run the command line.

    Args:
        argv: its words, or the parsed flags; None: those of this process.

    Returns:
        The exit code: 0; 2 after one sentence about input that cannot be used; 130 after an interruption.
    """
    args = argv if isinstance(argv, argparse.Namespace) else parse_generate_args(argv)
    return run_command(run, args, "generate.py")


if __name__ == "__main__":
    raise SystemExit(main(ARGS))

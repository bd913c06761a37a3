"""Continue prompts with a trained GPT: `python generate.py --help` lists the flags."""

from __future__ import annotations  # the names in signatures stand for modules that are not imported yet

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inputs import LOG_DIR, PUBLISHED, InputError, Parser, beside

if TYPE_CHECKING:
    import torch

    from gpt import GPT
    from vocabulary import Vocabulary

DTYPES = ("float32", "bfloat16", "float16")
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
    import torch

    from pretrained import load_vocabulary

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


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="generate.py",
        description="Continue prompts with a trained GPT.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    which = parser.add_argument_group("model").add_mutually_exclusive_group()
    which.add_argument("--model_type", default="gpt2", choices=PUBLISHED,
                       help="published weights, downloaded once")  # fmt: skip
    which.add_argument("--checkpoint", metavar="RUN", default=argparse.SUPPRESS,
                       help="a trained model: a run's folder or name, a checkpoint, 'newest', or a folder with "
                       "config.json, model.safetensors and a tokenizer")  # fmt: skip
    parser.add_argument("--log_dir", default=LOG_DIR, help="folder of all runs, where 'newest' and names are looked up")
    parser.add_argument("--prompt", action="append", metavar="TEXT", default=argparse.SUPPRESS,
                        help="what to continue; may be given several times, and left out to begin a text")  # fmt: skip
    parser.add_argument("--num_samples", type=int, default=10, help="continuations of each prompt; 1 if greedy")
    parser.add_argument("--n_steps", type=int, default=20, help="tokens to add")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1: more of the probable; 0: greedy")
    parser.add_argument("--top_k", type=int, default=50, help="draw from the K most probable tokens; 0: from all")
    parser.add_argument("--top_p", type=float, default=1.0,
                        help="draw from the fewest tokens that have this probability together")  # fmt: skip
    parser.add_argument("--greedy", action="store_true", help="always take the most probable token")
    parser.add_argument("--stop", action="append", metavar="TEXT", default=argparse.SUPPRESS,
                        help="end a text before this; may be given several times")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="number format of the weights")
    return parser


def check(args: argparse.Namespace) -> None:
    """Raises InputError for the first flag whose value makes no sense."""
    for name, least in (("num_samples", 1), ("n_steps", 1), ("top_k", 0), ("seed", 0)):
        if getattr(args, name) < least:
            raise InputError(f"--{name} must be at least {least}, not {getattr(args, name)}")
    if args.seed >= 2**32:
        raise InputError(f"--seed must be below 2**32, not {args.seed}")
    if not (math.isfinite(args.temperature) and args.temperature >= 0):
        raise InputError(f"--temperature must be a number of at least 0, not {args.temperature}")
    if not 0 < args.top_p <= 1:
        raise InputError(f"--top_p must be above 0 and at most 1, not {args.top_p}")
    if "" in args.stop:
        raise InputError("--stop must not be empty: leave it out to go on to the last step")


def load_model(args: argparse.Namespace) -> tuple[GPT, Vocabulary]:
    """Model and vocabulary that the flags name.

    Raises:
        InputError: they cannot be had.
    """
    import torch

    from pretrained import load_with_vocabulary

    dtype = getattr(torch, args.dtype)
    if args.checkpoint is None or (Path(args.checkpoint).expanduser() / "config.json").is_file():
        place = args.model_type if args.checkpoint is None else Path(args.checkpoint)
        return load_with_vocabulary(place, dtype)
    from run_folder import find_checkpoint, load_gpt  # with Lightning, which takes seconds

    model, vocabulary, _ = load_gpt(find_checkpoint(args.checkpoint, beside(args.log_dir, LOG_DIR), "best"))
    return model.to(dtype), vocabulary


def run(args: argparse.Namespace) -> list[str]:
    """Print the texts that the flags ask for; returns them."""
    import torch

    for name, default in (("checkpoint", None), ("prompt", [""]), ("stop", [])):
        setattr(args, name, getattr(args, name, default))
    check(args)
    model, vocabulary = load_model(args)
    for prompt in args.prompt:
        vocabulary.encode(prompt)  # an unknown character is reported before anything is generated
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(args.seed)
    greedy = args.greedy or args.temperature == 0
    show = (lambda piece: print(piece, end="", flush=True)) if sys.stdout.isatty() else None
    texts = []
    for prompt in args.prompt:
        texts += generate(model, args.model_type, prompt, 1 if greedy else args.num_samples, args.n_steps, not greedy,
                          args.top_k or None, args.temperature, device, top_p=args.top_p if args.top_p < 1 else None,
                          stop=args.stop, vocabulary=vocabulary, generator=generator, show=show)  # fmt: skip
    return texts


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 after one sentence about what cannot be used."""
    args = build_parser().parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):  # a file or pipe of an older encoding lacks some characters
        sys.stdout.reconfigure(errors="replace")
    try:
        run(args)
    except InputError as error:
        print(f"generate.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Continue prompts with a trained GPT: `python generate.py --help` lists the flags."""

from args import BEST, build_generate_parser, with_defaults

if __name__ == "__main__":
    ARGS = build_generate_parser().parse_given()  # first, since importing PyTorch takes seconds

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from gpt import GPT, load_gpt
from pretrained import check_fits, load_vocabulary
from run import find_run, run_command
from vocabulary import Vocabulary

RULE = "-" * 80


def generate(model: GPT, model_type: str | Path, prompt: str = "", num_samples: int = 10, n_steps: int = 20,
             do_sample: bool = True, top_k: int | None = 50, temperature: float = 1.0,
             device: str | torch.device = "cpu", verbose: bool = True, *, top_p: float | None = None,
             stop: Sequence[str] = (), vocabulary: Vocabulary | None = None,
             generator: torch.Generator | None = None) -> list[str]:  # fmt: skip
    """Continue a prompt.

    Args:
        model: a `GPT`; it is moved to `device`.
        model_type: a published name or a folder, whose vocabulary is used unless `vocabulary` is given.
        prompt: an empty one means `<|endoftext|>`, after which GPT-2 begins a text; for characters, a line break.
        num_samples: how many continuations.
        n_steps: tokens to add.
        do_sample, top_k, temperature, top_p, generator: as in `GPT.generate`.
        device: where to compute.
        verbose: print the texts.
        stop: a text ends before the first of these strings in what was added.
        vocabulary: of the model.

    Returns:
        The texts, each beginning with the prompt.

    Raises:
        InputError: the prompt has a character that the vocabulary lacks, or the vocabulary cannot be had.
        ValueError: an argument is out of range.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, not {num_samples}")
    vocabulary = vocabulary or load_vocabulary(model_type)
    tokens = vocabulary.encode(prompt or vocabulary.beginning)
    idx = torch.tensor([tokens], device=device).expand(num_samples, -1)  # (num_samples, T)
    idx = model.to(device).generate(idx, n_steps, temperature, do_sample, top_k, top_p=top_p, generator=generator)
    texts = []
    for row in idx[:, len(tokens) :].tolist():
        added = vocabulary.decode(row)
        ends = [added.find(string) for string in stop if string in added]
        texts.append(prompt + added[: min(ends, default=None)])
        if verbose:
            print(f"{texts[-1]}\n{RULE}")
    return texts


def load_model(args: argparse.Namespace) -> tuple[GPT, Vocabulary]:
    """Model and vocabulary that the flags name. Raises InputError if they cannot be had."""
    dtype = getattr(torch, args.dtype)
    place = args.model_type if args.checkpoint is None else Path(args.checkpoint).expanduser()
    if args.checkpoint and not (place / "config.json").is_file():
        model, vocabulary, _ = load_gpt(find_checkpoint(args))
        return model.to(dtype), vocabulary
    vocabulary = load_vocabulary(place)  # first: it is small, and a missing one is noticed before a large download
    model = GPT.from_pretrained(place, dtype)
    check_fits(place, model, vocabulary)
    return model, vocabulary


def find_checkpoint(args: argparse.Namespace) -> Path:
    """The checkpoint that the flags `checkpoint log_dir` name: a file, or that of a run with the lowest validation
    loss. Raises InputError if there is none."""
    file = Path(args.checkpoint).expanduser()
    return file if file.is_file() else find_run(args.checkpoint, Path(args.log_dir), BEST) / BEST


def continue_prompts(args: argparse.Namespace) -> list[str]:
    """Print and return the texts that the flags of `generate.py` ask for; a missing flag has its default."""
    args = with_defaults(args, build_generate_parser())
    model, vocabulary = load_model(args)
    prompts = args.prompt or [""]
    for prompt in prompts:
        vocabulary.encode(prompt)  # an unknown character is reported before anything is generated
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(args.seed)
    greedy, texts = args.greedy or args.temperature == 0, []
    for prompt in prompts:
        texts += generate(model, args.model_type, prompt, 1 if greedy else args.num_samples, args.n_steps, not greedy,
                          args.top_k or None, args.temperature, device, top_p=args.top_p if args.top_p < 1 else None,
                          stop=args.stop or (), vocabulary=vocabulary, generator=generator)  # fmt: skip
    return texts


if __name__ == "__main__":
    raise SystemExit(run_command(continue_prompts, ARGS))

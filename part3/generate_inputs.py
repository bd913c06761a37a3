"""The flags of `generate.py` and `export.py`, and their checks. Only the standard library is needed here."""

import argparse
import math
import sys

from cli import check_paths, check_whole_numbers, exit_if_bad
from inputs import LOG_DIR, PUBLISHED, InputError, Parser

DTYPES = ("float32", "bfloat16", "float16")
LIMITS = {"num_samples": (1, 10_000), "n_steps": (1, 10**6), "top_k": (0, 10**9), "seed": (0, 2**32 - 1)}


def build_generate_parser() -> argparse.ArgumentParser:
    """The flags of `generate.py`."""
    parser = Parser(prog="generate.py", description="Continue prompts with a trained GPT.")
    which = parser.add_argument_group("model").add_mutually_exclusive_group()
    which.add_argument("--model_type", default="gpt2", choices=PUBLISHED,
                       help="published weights, downloaded once")  # fmt: skip
    which.add_argument("--checkpoint", metavar="RUN", default=argparse.SUPPRESS,
                       help="a trained model: a run directory, a run's name in --log_dir, a checkpoint file, 'newest', "
                       "or a folder with "
                       "config.json, model.safetensors and a tokenizer")  # fmt: skip
    parser.add_argument(
        "--log_dir", default=LOG_DIR, help="directory of the runs; 'newest' looks into all directories below it"
    )
    parser.add_argument("--prompt", action="append", metavar="TEXT", default=argparse.SUPPRESS,
                        help="text to continue; may be repeated; without it, a new text begins")  # fmt: skip
    parser.add_argument("--num_samples", type=int, default=10, help="continuations of each prompt; always 1 if greedy")
    parser.add_argument("--n_steps", type=int, default=20, help="new tokens of each continuation")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="the logits are divided by this before sampling; 0: greedy"
    )
    parser.add_argument("--top_k", type=int, default=50, help="draw from the TOP_K most probable tokens; 0: from all")
    parser.add_argument("--top_p", type=float, default=1.0,
                        help="draw from the fewest, most probable tokens whose probabilities sum to at "
                        "least TOP_P; 1: from all")  # fmt: skip
    parser.add_argument("--greedy", action="store_true", help="always take the most probable token")
    parser.add_argument("--stop", action="append", metavar="TEXT", default=argparse.SUPPRESS,
                        help="end a text before this string; may be repeated")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampled tokens")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="number format of the weights")
    return parser


def parse_generate_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line of `generate.py`."""
    parser = build_generate_parser()
    args = parser.parse_args(argv)
    for name, default in (("checkpoint", None), ("prompt", [""]), ("stop", [])):
        setattr(args, name, getattr(args, name, default))
    exit_if_bad(check_generate_flags, args, parser)
    args.top_p = max(args.top_p, sys.float_info.min)  # a smaller number counts as 0 once PyTorch flushes denormals
    return args


def check_generate_flags(args: argparse.Namespace) -> None:
    """Raises InputError for the first flag whose value makes no sense."""
    check_whole_numbers(args, LIMITS)
    check_paths(args, ("checkpoint", "log_dir"))
    if not (math.isfinite(args.temperature) and args.temperature >= 0):
        raise InputError(f"--temperature must be a number of at least 0, not {args.temperature}")
    if not 0 < args.top_p <= 1:
        raise InputError(f"--top_p must be above 0 and at most 1, not {args.top_p}")
    if "" in args.stop:
        raise InputError("--stop must not be empty: leave it out to go on to the last step")


def build_export_parser() -> argparse.ArgumentParser:
    """The flags of `export.py`."""
    parser = Parser(
        prog="export.py",
        description="Write a trained GPT as config.json, model.safetensors and its tokenizer, for transformers.",
    )
    parser.add_argument("--checkpoint", default="newest", metavar="RUN",
                        help="a run directory, a run's name in --log_dir, a checkpoint file, or 'newest'")  # fmt: skip
    parser.add_argument(
        "--log_dir", default=LOG_DIR, help="directory of the runs; 'newest' looks into all directories below it"
    )
    parser.add_argument("--output_dir", required=True, help="where the files go", default=argparse.SUPPRESS)
    return parser


def parse_export_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line of `export.py`."""
    parser = build_export_parser()
    args = parser.parse_args(argv)
    exit_if_bad(lambda args: check_paths(args, ("checkpoint", "log_dir", "output_dir")), args, parser)
    return args

"""The flags of `train.py`, `generate.py` and `export.py`. Only the standard library is imported: errors in flags appear
at once."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from run import HERE, InputError, Parser, number, path, resolve_args, whole_number

DATA_DIR, LOG_DIR = str(HERE.parent / "data"), str(HERE / "logs")
LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"  # in a run directory
TEXTS = ("tiny_shakespeare", "pydoc")
# Layers, heads and channels of each model type.
SIZES = {
    "openai-gpt": (12, 12, 768),
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
    "gopher-44m": (8, 16, 512),
    "gpt-mini": (6, 6, 192),
    "gpt-micro": (4, 4, 128),
    "gpt-nano": (3, 3, 48),
}
PUBLISHED = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")  # those whose weights can be downloaded
# A resumed run keeps these flags: with another value, no uninterrupted run could reproduce it.
FIXED = ("model_type", "block_size", "use_pretrained", "train_batch_size", "learning_rate", "weight_decay", "betas",
         "clip_grad_norm", "seed", "warmup_steps", "lr_schedule", "min_learning_rate", "val_every_n_steps")  # fmt: skip

not_negative = number("of at least 0", lambda value: value >= 0)


def text_source(text: str) -> str:
    """A type for argparse: the name of a text, or the path of one."""
    return text if text in TEXTS else path(text)


def weights_source(text: str) -> str:
    """A type for argparse: "hub", or a folder with weights."""
    if text in PUBLISHED and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}: for the published weights give "
                                         f"--use_pretrained --model_type {text}")  # fmt: skip
    return text if text == "hub" else path(text)


def build_parser() -> Parser:
    """The flags of `train.py`: those of the course, with the course's defaults, and further ones."""
    parser = Parser("train.py", "Train a GPT on a text, from scratch or from published weights.")
    data = parser.add_argument_group("text")
    data.add_argument("--txt_file", type=text_source, default="tiny_shakespeare",
                      help="a text file in UTF-8; 'tiny_shakespeare', downloaded if it is not in --data_dir/text; or "
                      "'pydoc', the language reference inside every Python, which needs no network")  # fmt: skip
    data.add_argument("--data_dir", type=path, default=DATA_DIR, help="directory with text/tiny_shakespeare.txt")
    data.add_argument("--num_workers", type=whole_number(0, 256), default=0,
                      help="data loader processes; 0 is fastest, since the text is in memory")  # fmt: skip

    model = parser.add_argument_group("model")
    model.add_argument("--model_type", choices=tuple(SIZES), default="gpt-mini", help="size of the model")
    model.add_argument("--block_size", type=whole_number(1, 10**6), default=128, help="context length in tokens")
    model.add_argument("--use_pretrained", nargs="?", type=weights_source, const="hub", default=argparse.SUPPRESS,
                       metavar="DIR", help="fine-tune: start from the published weights of --model_type, or from those "
                       "in a folder, with the tokens of that model (default: train from scratch)")  # fmt: skip

    training = parser.add_argument_group("training")
    whole, steps = whole_number(1, 10**6), whole_number(1, 10**9)
    training.add_argument("--train_batch_size", type=whole, default=128, help="windows in a step, on each device")
    training.add_argument("--learning_rate", type=number("above 0", lambda rate: rate > 0), default=5e-4,
                          help="learning rate of AdamW")  # fmt: skip
    training.add_argument("--weight_decay", type=not_negative, default=0.1, help="of AdamW, on linear weights")
    training.add_argument("--betas", nargs=2, type=number("from 0 to below 1", lambda beta: 0 <= beta < 1),
                          default=[0.9, 0.95], help="beta1 and beta2 of AdamW")  # fmt: skip
    training.add_argument("--clip_grad_norm", type=not_negative, default=1.0, help="of the gradient; 0: no clipping")
    training.add_argument("--num_epochs", type=whole, default=100, help="passes over all windows of the text")
    training.add_argument("--max_steps", type=steps, default=argparse.SUPPRESS, metavar="N",
                          help="stop after N steps, even within an epoch (default: no limit)")  # fmt: skip
    training.add_argument("--warmup_steps", type=whole_number(0, 10**9), default=0,
                          help="steps in which the learning rate rises linearly to --learning_rate")  # fmt: skip
    training.add_argument("--lr_schedule", choices=("constant", "cosine"), default="constant",
                          help="cosine: after the warm-up, decay to --min_learning_rate at the last step")  # fmt: skip
    training.add_argument("--min_learning_rate", type=not_negative, default=0.0, help="at the end of the cosine")
    training.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0,
                          help="seed of weights, batches, dropout and samples")  # fmt: skip
    training.add_argument("--resume", nargs="?", const="newest", default=argparse.SUPPRESS, metavar="RUN",
                          help="resume a run: its directory, or its name (version_3); without RUN, the newest "
                          "(default: start a new run)")  # fmt: skip

    watching = parser.add_argument_group("validation, samples and logs")
    watching.add_argument("--val_every_n_steps", type=steps, default=250, metavar="N",
                          help="validate and save a checkpoint every N steps")  # fmt: skip
    watching.add_argument("--generate_every_n_steps", type=steps, default=1000, metavar="N",
                          help="write sample texts every N steps")  # fmt: skip
    watching.add_argument("--generate_batch_size", type=whole, default=5, help="sample texts each time")
    watching.add_argument("--log_dir", type=path, default=LOG_DIR, help="directory of the run directories")
    watching.add_argument("--progress_bar", action="store_true",
                          help="show a progress bar even if the output is not a terminal")  # fmt: skip

    machine = parser.add_argument_group("machine")
    machine.add_argument("--accelerator", choices=("auto", "gpu", "cpu"), default="auto",
                         help="auto: a GPU if there is one, else the CPU")  # fmt: skip
    machine.add_argument("--devices", type=whole_number(1, os.cpu_count() or 1), default=1,
                         help="number of GPUs (or of CPU processes)")  # fmt: skip
    machine.add_argument("--num_nodes", type=whole_number(1, 10_000), default=1, help="number of machines")
    machine.add_argument("--strategy", choices=("auto", "ddp"), default="auto",
                         help="auto: ddp if there are several devices, else a single process")  # fmt: skip
    machine.add_argument("--precision", choices=("32-true", "16-mixed", "bf16-mixed"), default="32-true",
                         help="number format of the training")  # fmt: skip
    machine.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False,
                         help="compile the model with torch.compile")  # fmt: skip
    machine.add_argument("--deterministic", action=argparse.BooleanOptionalAction, default=False,
                         help="on a GPU: the same results in each run, but slower")  # fmt: skip
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags of a command line of `train.py`; None where a flag was not given."""
    parser = build_parser()
    args = parser.parse_given(argv)
    if args.resume is None:  # else, the flags that were not given are those of the run
        try:
            check_args(with_defaults(args, parser))
        except InputError as error:
            parser.error(str(error))
    return args


def with_defaults(args: argparse.Namespace, parser: Parser) -> argparse.Namespace:
    """All flags of a parser: those that are given, or else their defaults."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    return argparse.Namespace(**{**parser.default_flags(), **given})


def complete_args(args: argparse.Namespace, read: Callable[[Path], dict]) -> tuple:
    """All flags of a training; directory and checkpoint of the run to resume. See `run.resolve_args`."""
    args, run_dir, saved = resolve_args(args, build_parser(), FIXED, LAST, read)
    check_args(args)
    for name in ("max_steps", "num_epochs"):
        if saved and args.lr_schedule == "cosine" and (planned := saved["flags"][name]) != getattr(args, name):
            raise InputError(f"the cosine schedule of the run to resume was planned for --{name} {planned}: leave the "
                             "flag out, or start a new run without --resume")  # fmt: skip
    return args, run_dir, saved


def check_args(args: argparse.Namespace) -> None:
    """Raises InputError for flags that do not go together."""
    if args.min_learning_rate > args.learning_rate:
        raise InputError(f"--min_learning_rate {args.min_learning_rate} must not be above --learning_rate "
                         f"{args.learning_rate}")  # fmt: skip
    if args.min_learning_rate and args.lr_schedule == "constant":
        raise InputError("--min_learning_rate needs --lr_schedule cosine: give both, or leave it out")
    if args.use_pretrained == "hub" and args.model_type not in PUBLISHED:
        raise InputError(f"there are no published weights for --model_type {args.model_type}: choose one of "
                         f"{', '.join(PUBLISHED)}, or leave out --use_pretrained")  # fmt: skip


def build_generate_parser() -> Parser:
    """The flags of `generate.py`."""
    parser = Parser("generate.py", "Continue prompts with a trained GPT.")
    which = parser.add_argument_group("model").add_mutually_exclusive_group()
    which.add_argument("--model_type", default="gpt2", choices=PUBLISHED, help="published weights, downloaded once")
    which.add_argument("--checkpoint", metavar="RUN", default=argparse.SUPPRESS,
                       help="a trained model: a run directory, a run's name in --log_dir, a checkpoint file, 'newest', "
                       "or a folder with config.json, model.safetensors and a tokenizer")  # fmt: skip
    parser.add_argument("--log_dir", type=path, default=LOG_DIR, help="directory with the runs, at any depth")
    parser.add_argument("--prompt", action="append", default=argparse.SUPPRESS,
                        help="text to continue; may be repeated; without it, a new text begins")  # fmt: skip
    parser.add_argument("--num_samples", type=whole_number(1, 10_000), default=10, help="texts; always 1 if greedy")
    parser.add_argument("--n_steps", type=whole_number(1, 10**6), default=20, help="new tokens of each continuation")
    parser.add_argument("--temperature", type=not_negative, default=1.0, help="divides the logits; 0: greedy")
    parser.add_argument("--top_k", type=whole_number(0, 10**9), default=50,
                        help="draw from the TOP_K most probable tokens; 0: from all")  # fmt: skip
    parser.add_argument("--top_p", type=number("above 0 and at most 1", lambda p: 0 < p <= 1), default=1.0,
                        help="draw from the fewest, most probable tokens whose probabilities sum to at least TOP_P; 1: "
                        "from all")  # fmt: skip
    parser.add_argument("--greedy", action="store_true", help="always take the most probable token")
    parser.add_argument("--stop", action="append", default=argparse.SUPPRESS, help="end a text before this string")
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, help="seed of the sampled tokens")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of weights")
    return parser


def build_export_parser() -> Parser:
    """The flags of `export.py`."""
    parser = Parser("export.py", "Write a trained GPT as config.json, model.safetensors and its tokenizer, for "
                    "transformers.")  # fmt: skip
    parser.add_argument("--checkpoint", default="newest", metavar="RUN",
                        help="a run directory, a run's name in --log_dir, a checkpoint file, or 'newest'")  # fmt: skip
    parser.add_argument("--log_dir", type=path, default=LOG_DIR, help="directory with the runs, at any depth")
    parser.add_argument("--output_dir", type=path, required=True, default=argparse.SUPPRESS, help="where the files go")
    return parser

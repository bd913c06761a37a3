"""The flags of `train.py`, their checks, and the paths that they name.

Only the standard library is needed here, so that `--help` and errors in flags appear at once.
"""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path

from cli import (
    HERE,
    InputError,
    NotFiniteError,
    Parser,
    check_choices,
    check_devices_flag,
    check_paths,
    check_positive,
    check_whole_numbers,
    ensure_writable,
    exit_if_bad,
    file_version,
    newest_file,
    resolve_path,
)
from config import SIZES

__all__ = ["HERE", "InputError", "NotFiniteError", "Parser", "ensure_writable", "resolve_path"]

DATA_DIR = "../data/"
LOG_DIR = "./logs"
RUNS = "lightning_logs"  # Lightning's directory within --log_dir
TEXTS = ("tiny_shakespeare", "pydoc")
MODEL_TYPES = tuple(SIZES)
PUBLISHED = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")  # those whose weights can be downloaded
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true")
ACCELERATORS = ("auto", "gpu", "cpu")
STRATEGIES = ("auto", "ddp")
SCHEDULES = ("constant", "cosine")
# A resumed run keeps these flags: with another value, no uninterrupted run could reproduce it.
IDENTITY = ("model_type", "block_size", "use_pretrained", "train_batch_size", "learning_rate",
            "weight_decay", "betas", "clip_grad_norm", "seed", "warmup_steps", "lr_schedule", "min_learning_rate",
            "val_every_n_steps")  # fmt: skip
# Smallest and largest values allowed. The largest exceed every need, but stay below what makes PyTorch fail in odd
# ways.
LIMITS = {"block_size": (1, 10**6), "train_batch_size": (1, 10**6), "num_epochs": (1, 10**6), "max_steps": (1, 10**9),
          "val_every_n_steps": (1, 10**9), "generate_every_n_steps": (1, 10**9), "generate_batch_size": (1, 10_000),
          "num_nodes": (1, 10_000), "warmup_steps": (0, 10**9), "num_workers": (0, 256),
          "seed": (0, 2**32 - 1)}  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """The flags of `train.py`: the course's names and defaults, and this implementation's additions."""
    parser = Parser(prog="train.py", description="Train a GPT on a text, from scratch or from published weights.")
    data = parser.add_argument_group("text")
    data.add_argument("--txt_file", default="tiny_shakespeare",
                      help="a text file in UTF-8; 'tiny_shakespeare', downloaded if it is not in --data_dir/text; or "
                      "'pydoc', the language reference inside every Python, which needs no network")  # fmt: skip
    data.add_argument("--data_dir", default=DATA_DIR, help="directory with text/tiny_shakespeare.txt")
    data.add_argument("--num_workers", type=int, default=0,
                      help="data loader processes; 0 is fastest, since the text is already in memory")  # fmt: skip

    model = parser.add_argument_group("model")
    model.add_argument("--model_type", choices=MODEL_TYPES, default="gpt-mini", help="size of the model")
    model.add_argument("--block_size", type=int, default=128, help="context length in tokens")
    model.add_argument("--use_pretrained", nargs="?", const="hub", metavar="DIR",
                       help="fine-tune: start from the published weights of --model_type, or from those in a folder; "
                       "the text is then split into the tokens of that model instead of characters "
                       "(default: train from scratch)")  # fmt: skip

    training = parser.add_argument_group("training")
    training.add_argument("--train_batch_size", type=int, default=128, help="windows of text in a step, on each device")
    training.add_argument("--learning_rate", type=float, default=5e-4, help="learning rate of AdamW")
    training.add_argument(
        "--weight_decay", type=float, default=0.1, help="weight decay of AdamW, on the weights of linear layers"
    )
    training.add_argument("--betas", type=float, nargs=2, default=(0.9, 0.95), help="beta1 and beta2 of AdamW")
    training.add_argument(
        "--clip_grad_norm", type=float, default=1.0, help="maximum norm of the gradient; 0: no clipping"
    )
    training.add_argument("--num_epochs", type=int, default=100, help="passes over all windows of the text")
    training.add_argument(
        "--max_steps",
        type=int,
        metavar="N",
        help="stop after N steps, even within an epoch (default: no limit)",
    )
    training.add_argument("--warmup_steps", type=int, default=0,
                          help="steps in which the learning rate rises linearly to --learning_rate")  # fmt: skip
    training.add_argument("--lr_schedule", choices=SCHEDULES, default="constant",
                          help="cosine: after the warm-up, decay to --min_learning_rate at the last step")  # fmt: skip
    training.add_argument(
        "--min_learning_rate", type=float, default=0.0, help="final learning rate of the cosine schedule"
    )
    training.add_argument("--seed", type=int, default=0, help="seed of weights, batches, dropout and samples")
    training.add_argument("--resume", nargs="?", const="newest", metavar="RUN",
                          help="resume a run: its directory, or its name (version_3); without RUN, the newest "
                          "(default: start a new run)")  # fmt: skip

    watching = parser.add_argument_group("validation, samples and logs")
    watching.add_argument("--val_every_n_steps", type=int, default=250, metavar="N",
                          help="validate and save a checkpoint every N steps")  # fmt: skip
    watching.add_argument("--generate_every_n_steps", type=int, default=1000, metavar="N",
                          help="write sample texts every N steps")  # fmt: skip
    watching.add_argument("--generate_batch_size", type=int, default=5, help="sample texts each time")
    watching.add_argument("--log_dir", default=LOG_DIR, help="directory in which run directories are created")
    watching.add_argument(
        "--progress_bar", action="store_true", help="show a progress bar even if the output is not a terminal"
    )

    machine = parser.add_argument_group("machine")
    machine.add_argument("--accelerator", choices=ACCELERATORS, default="auto",
                         help="auto: a GPU if there is one, else the CPU")  # fmt: skip
    machine.add_argument("--devices", default="1", help="number of GPUs (or of CPU processes), or 'auto'")
    machine.add_argument("--num_nodes", type=int, default=1, help="number of machines")
    machine.add_argument("--strategy", choices=STRATEGIES, default="auto",
                         help="auto: ddp if there are several devices, else a single process")  # fmt: skip
    machine.add_argument("--precision", choices=PRECISIONS, default="32-true", help="number format of the training")
    machine.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False, help="compile the model with torch.compile"
    )
    machine.add_argument("--deterministic", action=argparse.BooleanOptionalAction, default=False,
                         help="on a GPU: the same results in each run, in full float32, but slower")  # fmt: skip
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check a command line; `given` in the result names the flags that the user set. With `--resume`, whether
    flags fit each other is checked later, once those of the run are read."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    args.given = frozenset(vars(parser.parse_args(argv)))
    exit_if_bad(check_flags if args.resume is None else check_values, args, parser)
    return args


def resolve_settings(args: argparse.Namespace, read_checkpoint: Callable[[Path], dict]) -> argparse.Namespace:
    """Complete the flags, merge them with those of a resumed run, check them, and make their paths absolute.

    Args:
        args: what `parse_args` returns, or a namespace with any of the flags of `train.py`.
        read_checkpoint: returns the content of a checkpoint file, with its `flags`.

    Returns:
        All flags, with absolute paths (as text) for `txt_file`, `data_dir` and `log_dir`, and
        `given`: names of the flags that the user set;
        `checkpoint`, `version`, `saved`, `run_dir`: path of the checkpoint to resume from, its `file_version`, its
        content, and its run directory; None in a new run.

    Raises:
        InputError: a flag makes no sense, the run cannot be resumed, or its directory cannot be written.
    """
    settings = with_defaults(args)
    (check_flags if settings.resume is None else check_values)(settings)
    if settings.txt_file not in TEXTS:
        settings.txt_file = str(resolve_path(settings.txt_file))
    log_dir = resolve_path(settings.log_dir, default=LOG_DIR)
    checkpoint = version = saved = run_dir = None
    if settings.resume is not None:
        checkpoint = find_checkpoint(settings.resume, log_dir, "last")
        version, saved = file_version(checkpoint), read_checkpoint(checkpoint)
        run_dir = run_dir_of(checkpoint, "--resume")
        settings = merge_resumed_flags(settings, saved["flags"])
        check_flags(settings)
    ensure_writable(run_dir or log_dir, "run to --resume" if run_dir else "--log_dir", keep=False)
    settings.log_dir, settings.data_dir = str(log_dir), str(resolve_path(settings.data_dir, default=DATA_DIR))
    settings.checkpoint, settings.version, settings.saved, settings.run_dir = checkpoint, version, saved, run_dir
    return settings


def with_defaults(args: argparse.Namespace) -> argparse.Namespace:
    """`args` with a default for every missing flag, and without attributes that are not flags."""
    defaults = vars(build_parser().parse_args([]))
    values = {name: value for name, value in vars(args).items() if name in defaults}
    given = vars(args).get("given", {name for name, value in values.items() if value != defaults[name]})
    args = argparse.Namespace(**{**defaults, **values, "given": frozenset(given)})
    args.betas = tuple(args.betas)
    for name in ("txt_file", "data_dir", "log_dir"):  # a Path in a checkpoint could not be read again
        setattr(args, name, str(getattr(args, name)))
    args.use_pretrained = {True: "hub", False: None}.get(args.use_pretrained, args.use_pretrained)
    if args.use_pretrained is not None:
        args.use_pretrained = str(args.use_pretrained)
    return args


def merge_resumed_flags(args: argparse.Namespace, flags: dict) -> argparse.Namespace:
    """`args` for resuming a run that was started with `flags`, which replace the flags that were not given.

    Raises:
        InputError: a flag in IDENTITY was given with another value than the run's.
    """
    values = vars(args).copy()
    flags = {**vars(build_parser().parse_args([])), **flags}  # defaults for flags that the run does not know yet
    for name in IDENTITY:
        theirs = tuple(flags[name]) if name == "betas" else flags[name]
        if name in args.given and values[name] != theirs:
            raise InputError(
                f"--{name} {values[name]} was given, but the run to resume was started with --{name} {theirs}: "
                "leave the flag out, or start a new run without --resume"
            )
        values[name] = theirs
    for name in ("txt_file", "num_epochs", "max_steps", "precision", "generate_every_n_steps", "generate_batch_size",
                 "accelerator", "devices", "num_nodes", "strategy", "compile", "deterministic"):  # fmt: skip
        if name not in args.given:
            values[name] = flags[name]
        elif name in ("num_epochs", "max_steps") and flags["lr_schedule"] == "cosine" and values[name] != flags[name]:
            raise InputError(
                f"--{name} {values[name]} was given, but the cosine schedule of the run to resume was planned for "
                f"--{name} {flags[name]}: leave the flag out, or start a new run without --resume"
            )
    if "data_dir" not in args.given and Path(flags["data_dir"]).is_dir():
        values["data_dir"] = flags["data_dir"]
    return argparse.Namespace(**values)


def flags_to_repeat(args: argparse.Namespace) -> list[str]:
    """The given flags that a command to resume this run must repeat: all but those in IDENTITY, which the checkpoint
    holds."""
    words = []
    for action in build_parser()._actions:
        if action.dest in args.given - {*IDENTITY, "resume", "log_dir"}:
            value = getattr(args, action.dest)
            if isinstance(value, bool):
                words.append(action.option_strings[0 if value else -1])
            else:
                words += [action.option_strings[0], str(value)]
    return words


def check_values(args: argparse.Namespace) -> None:
    """Raises InputError for the first flag whose value makes no sense by itself."""
    check_whole_numbers(args, {name: least_and_most for name, least_and_most in LIMITS.items()
                               if not (name == "max_steps" and args.max_steps is None)})  # fmt: skip
    check_paths(args, ("txt_file", "data_dir", "log_dir", "resume", "use_pretrained"))
    check_positive(args, ["learning_rate"])
    for name in ("weight_decay", "clip_grad_norm", "min_learning_rate"):
        value = getattr(args, name)
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"--{name} must be a number of at least 0, not {value}")
    if len(args.betas) != 2 or not all(0 <= beta < 1 for beta in args.betas):
        raise InputError(f"--betas must be two numbers of at least 0 and below 1, not {args.betas}")
    check_devices_flag(args.devices)
    check_choices(args, {"model_type": MODEL_TYPES, "precision": PRECISIONS, "accelerator": ACCELERATORS,
                         "strategy": STRATEGIES, "lr_schedule": SCHEDULES})  # fmt: skip


def check_flags(args: argparse.Namespace) -> None:
    """Raises InputError for the first flag whose value makes no sense, by itself or beside the others."""
    check_values(args)
    if args.min_learning_rate > args.learning_rate:
        raise InputError(f"--min_learning_rate {args.min_learning_rate} must not be above --learning_rate "
                         f"{args.learning_rate}")  # fmt: skip
    if "min_learning_rate" in args.given and args.min_learning_rate and args.lr_schedule == "constant":
        raise InputError("--min_learning_rate needs the cosine schedule, but --lr_schedule is constant: leave it out, "
                         "or give --lr_schedule cosine")  # fmt: skip
    if args.use_pretrained in PUBLISHED and not Path(args.use_pretrained).is_dir():
        raise InputError(f"--use_pretrained takes a folder, and there is none named {args.use_pretrained}: for the "
                         f"published weights give --use_pretrained --model_type {args.use_pretrained}")  # fmt: skip
    if args.use_pretrained == "hub" and args.model_type not in PUBLISHED:
        raise InputError(f"there are no published weights for --model_type {args.model_type}: choose one of "
                         f"{', '.join(PUBLISHED)}, or leave out --use_pretrained")  # fmt: skip


def find_checkpoint(run: str, log_dir: Path, which: str) -> Path:
    """Absolute path of a run's checkpoint.

    Args:
        run: a run directory, a run's name in `log_dir`, a checkpoint file, or "newest": the checkpoint below `log_dir`
            that was written last.
        log_dir: directory that holds the runs.
        which: "best" or "last".

    Raises:
        InputError: there is none.
    """
    if run == "newest":
        found = newest_file(log_dir, "checkpoints", f"{which}.ckpt")
        if not found:
            raise InputError(f"no run in {log_dir} has a checkpoint yet: train one first, or name a run directory")
        return found
    for place in (resolve_path(run), log_dir / RUNS / run):
        for file in (place, place / "checkpoints" / f"{which}.ckpt"):
            if os.path.isfile(file):
                return file
    raise InputError(
        f"{run} is no run with a checkpoint, neither as a path nor in {log_dir / RUNS}: name a run directory"
    )


def run_dir_of(checkpoint: Path, flag: str) -> Path:
    """The run directory that a checkpoint belongs to.

    Raises:
        InputError: the checkpoint is not inside a run directory, so that files would be written into an unrelated
            one; the message names the flag to change.
    """
    if checkpoint.parent.name != "checkpoints":
        raise InputError(f"{checkpoint} is not in a run directory: give the run directory to {flag}")
    return checkpoint.parent.parent

"""What a user hands over: flags and paths, and the error for those that make no sense.

Nothing beyond the standard library is imported here, so that `train.py --help` answers at once.
"""

import argparse
import math
import os
import tempfile
from pathlib import Path

from config import SIZES

HERE = Path(__file__).resolve().parent
DATA_DIR = "../data/"
LOG_DIR = "./logs"
MODEL_TYPES = tuple(SIZES)
PUBLISHED = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")  # those whose weights can be downloaded
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true")
ACCELERATORS = ("auto", "gpu", "cpu")
STRATEGIES = ("auto", "ddp")
SCHEDULES = ("constant", "cosine")
# What makes a run the run it is: to continue it with another value would make a run that nothing else can repeat.
IDENTITY = ("model_type", "block_size", "use_pretrained", "train_batch_size", "learning_rate",
            "weight_decay", "betas", "clip_grad_norm", "seed", "warmup_steps", "lr_schedule", "min_learning_rate",
            "val_every_n_steps")  # fmt: skip


class InputError(Exception):
    """Something given by the user cannot be used; the message is one sentence that says what to do about it."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage of every flag before it."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def beside(path: str | Path, default: str) -> Path:
    """Absolute form of `path`: the course's own relative `default` is seen from this folder, whichever directory the
    script is started in; every other path from where the user is."""
    return (HERE / path if Path(path) == Path(default) else Path(os.path.expanduser(path))).resolve()


def make_writable(folder: Path, flag: str) -> None:
    """Create a folder. Raises InputError, which names the flag to change, where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}): give another {flag}") from error


def build_parser() -> argparse.ArgumentParser:
    """The flags of `train.py`: the course's names and defaults, and this implementation's additions."""
    parser = Parser(
        prog="train.py",
        description="Train a GPT on a text, from scratch or from published weights.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    data = parser.add_argument_group("text")
    data.add_argument("--txt_file", default="tiny_shakespeare",
                      help="a text file in UTF-8; 'tiny_shakespeare', downloaded if it is not in --data_dir/text; or "
                      "'pydoc', the language reference inside every Python, which needs no network")  # fmt: skip
    data.add_argument("--data_dir", default=DATA_DIR, help="folder whose folder text holds tiny_shakespeare.txt")
    data.add_argument("--num_workers", type=int, default=0,
                      help="loader processes; a batch is one index operation, so 0 is fastest")  # fmt: skip

    model = parser.add_argument_group("model")
    model.add_argument("--model_type", choices=MODEL_TYPES, default="gpt-mini", help="size of the model")
    model.add_argument("--block_size", type=int, default=128, help="tokens that a prediction can look back on")
    model.add_argument("--use_pretrained", nargs="?", const="hub", metavar="DIR",
                       help="fine-tune: start from the published weights of --model_type, or from those in a folder, "
                       "on the tokens of that model instead of the text's characters")  # fmt: skip

    training = parser.add_argument_group("training")
    training.add_argument("--train_batch_size", type=int, default=128, help="windows of text a step")
    training.add_argument("--learning_rate", type=float, default=5e-4, help="of AdamW")
    training.add_argument("--weight_decay", type=float, default=0.1, help="on the weights of linear layers")
    training.add_argument("--betas", type=float, nargs=2, default=(0.9, 0.95), help="of AdamW")
    training.add_argument("--clip_grad_norm", type=float, default=1.0, help="largest norm of a gradient; 0: any")
    training.add_argument("--num_epochs", type=int, default=100, help="passes over all windows of the text")
    training.add_argument("--max_steps", type=int, metavar="N", help="stop after N steps, which may be before an epoch")
    training.add_argument("--warmup_steps", type=int, default=0,
                          help="steps in which the learning rate rises linearly to --learning_rate")  # fmt: skip
    training.add_argument("--lr_schedule", choices=SCHEDULES, default="constant",
                          help="cosine: after the warm-up, fall to --min_learning_rate at the last step")  # fmt: skip
    training.add_argument("--min_learning_rate", type=float, default=0.0, help="where the cosine ends")
    training.add_argument("--seed", type=int, default=0, help="seed of weights, batches, dropout and samples")
    training.add_argument("--resume", nargs="?", const="newest", metavar="RUN",
                          help="continue a run: its folder, its name, or, without a value, the newest")  # fmt: skip

    watching = parser.add_argument_group("watching")
    watching.add_argument("--val_every_n_steps", type=int, default=250, metavar="N",
                          help="steps between two validations, each of which also keeps a checkpoint")  # fmt: skip
    watching.add_argument("--generate_every_n_steps", type=int, default=1000, metavar="N",
                          help="steps between two rounds of sample texts")  # fmt: skip
    watching.add_argument("--generate_batch_size", type=int, default=5, help="sample texts in a round")
    watching.add_argument("--log_dir", default=LOG_DIR, help="folder of all runs")
    watching.add_argument("--progress_bar", action="store_true", help="show a bar even where the output is no terminal")

    machine = parser.add_argument_group("machine")
    machine.add_argument("--accelerator", choices=ACCELERATORS, default="auto",
                         help="auto: a GPU where there is one")  # fmt: skip
    machine.add_argument("--devices", default="1", help="how many GPUs (or CPU processes): a number or 'auto'")
    machine.add_argument("--num_nodes", type=int, default=1, help="how many machines")
    machine.add_argument("--strategy", choices=STRATEGIES, default="auto",
                         help="auto: one process, and ddp for several devices")  # fmt: skip
    machine.add_argument("--precision", choices=PRECISIONS, default="32-true", help="number format of the training")
    machine.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False, help="compile the model with torch.compile"
    )
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse a command line; `given` in the result names the flags that stood on it."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    args.given = frozenset(vars(parser.parse_args(argv)))
    return args


def completed(args: argparse.Namespace) -> argparse.Namespace:
    """`args` with a default for every flag that it lacks, such as a namespace with the course's flags alone, and
    without anything that is no flag."""
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


def continued(args: argparse.Namespace, flags: dict) -> argparse.Namespace:
    """`args` for continuing a run that was started with `flags`: what was not given is taken from the run, but for
    how to load and to watch.

    Raises:
        InputError: a flag that makes the run what it is was given with another value.
    """
    values = vars(args).copy()
    flags = {**vars(build_parser().parse_args([])), **flags}  # a flag that is newer than the run
    for name in IDENTITY:
        theirs = tuple(flags[name]) if name == "betas" else flags[name]
        if name in args.given and values[name] != theirs:
            raise InputError(
                f"--{name} {values[name]} was given, but the run to resume was started with --{name} {theirs}: "
                "leave the flag out, or start a new run without --resume"
            )
        values[name] = theirs
    for name in ("txt_file", "num_epochs", "max_steps", "precision", "generate_every_n_steps", "generate_batch_size",
                 "accelerator", "devices", "num_nodes", "strategy", "compile"):  # fmt: skip
        if name not in args.given:
            values[name] = flags[name]
        elif name in ("num_epochs", "max_steps") and flags["lr_schedule"] == "cosine" and values[name] != flags[name]:
            raise InputError(
                f"--{name} {values[name]} was given, but the cosine of the run to resume is made for {flags[name]}: "
                "leave the flag out, or start a new run without --resume"
            )
    if "data_dir" not in args.given and Path(flags["data_dir"]).is_dir():
        values["data_dir"] = flags["data_dir"]
    return argparse.Namespace(**values)


def given_again(args: argparse.Namespace) -> list[str]:
    """Flags to repeat where the run is continued: the given ones that do not make the run what it is, which its record
    may lack, or hold with an older value."""
    words = []
    for action in build_parser()._actions:
        if action.dest in args.given - {*IDENTITY, "resume", "log_dir"}:
            value = getattr(args, action.dest)
            if isinstance(value, bool):
                words.append(action.option_strings[0 if value else -1])
            else:
                words += [action.option_strings[0], str(value)]
    return words


def check(args: argparse.Namespace) -> None:
    """Raises InputError for the first flag whose value makes no sense."""
    for name, least in (("block_size", 1), ("train_batch_size", 1), ("num_epochs", 1), ("max_steps", 1),
                        ("val_every_n_steps", 1), ("generate_every_n_steps", 1), ("generate_batch_size", 1),
                        ("num_nodes", 1), ("warmup_steps", 0), ("num_workers", 0), ("seed", 0)):  # fmt: skip
        value = getattr(args, name)
        if not (value is None and name == "max_steps") and (not isinstance(value, int) or value < least):
            raise InputError(f"--{name} must be a whole number of at least {least}, not {value}")
    for name in ("txt_file", "data_dir", "log_dir"):
        if not str(getattr(args, name)):
            raise InputError(f"--{name} must not be empty: give a path, or leave it out")
    if args.seed >= 2**32:
        raise InputError(f"--seed must be below 2**32, not {args.seed}")
    if not (math.isfinite(args.learning_rate) and args.learning_rate > 0):
        raise InputError(f"--learning_rate must be a positive number, not {args.learning_rate}")
    for name in ("weight_decay", "clip_grad_norm", "min_learning_rate"):
        value = getattr(args, name)
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"--{name} must be a number of at least 0, not {value}")
    if args.min_learning_rate > args.learning_rate:
        raise InputError(f"--min_learning_rate {args.min_learning_rate} must not be above --learning_rate "
                         f"{args.learning_rate}")  # fmt: skip
    if "min_learning_rate" in args.given and args.min_learning_rate and args.lr_schedule == "constant":
        raise InputError("--min_learning_rate is where a cosine ends, and --lr_schedule is constant: leave it out, or "
                         "give --lr_schedule cosine")  # fmt: skip
    if len(args.betas) != 2 or not all(0 <= beta < 1 for beta in args.betas):
        raise InputError(f"--betas must be two numbers of at least 0 and below 1, not {args.betas}")
    if str(args.devices) != "auto" and (not str(args.devices).isdecimal() or int(args.devices) < 1):
        raise InputError(f"--devices must be 'auto' or a whole number of at least 1, not {args.devices}")
    for name, choices in (("model_type", MODEL_TYPES), ("precision", PRECISIONS), ("accelerator", ACCELERATORS),
                          ("strategy", STRATEGIES), ("lr_schedule", SCHEDULES)):  # fmt: skip
        if (value := getattr(args, name)) not in choices:
            raise InputError(f"--{name} must be one of {', '.join(choices)}, not {value}")
    if args.use_pretrained in PUBLISHED and not Path(args.use_pretrained).is_dir():
        raise InputError(f"--use_pretrained takes a folder, and there is none named {args.use_pretrained}: for the "
                         f"published weights give --use_pretrained --model_type {args.use_pretrained}")  # fmt: skip
    if args.use_pretrained == "hub" and args.model_type not in PUBLISHED:
        raise InputError(f"there are no published weights for --model_type {args.model_type}: choose one of "
                         f"{', '.join(PUBLISHED)}, or leave out --use_pretrained")  # fmt: skip

"""The flags of `train.py` and `generate.py`, their checks, and the paths that they name.

Only the standard library is imported here, so that `--help` and errors in flags appear at once.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from cli import (
    HERE,
    InputError,
    NoDataError,
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

__all__ = ["HERE", "InputError", "NoDataError", "NotFiniteError", "Parser", "ensure_writable", "resolve_path"]

DATA_DIR = "../data/"
LOG_DIR = "VAE_logs"
RUNS = "lightning_logs"  # Lightning's directory within --log_dir
DATASETS = ("mnist", "digits")
# Without "16-true": in float16, Adam's eps and the squared gradients underflow to zero.
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true")
ACCELERATORS = ("auto", "gpu", "cpu")
STRATEGIES = ("auto", "ddp")
PICTURES = ("samples", "reconstructions", "interpolations", "manifold")
# A resumed run keeps these flags: with another value, no uninterrupted run could reproduce it.
IDENTITY = ("z_dim", "num_filters", "lr", "ema", "batch_size", "seed", "dataset")
# Least and greatest values: more than anybody needs, less than what makes a machine fail in strange ways.
LIMITS = {"z_dim": (1, 10_000), "num_filters": (1, 4096), "batch_size": (1, 10**6), "epochs": (1, 10**6),
          "num_nodes": (1, 10_000), "num_workers": (0, 256), "importance_samples": (0, 10**6),
          "seed": (0, 2**32 - 1)}  # fmt: skip
GENERATE_LIMITS = {"num_samples": (1, 10_000), "steps": (2, 1000), "seed": (0, 2**32 - 1)}
PATHS = ("data_dir", "log_dir", "resume")


# --------------------------------------------------------------------------------------------------- flags of train.py


def build_parser() -> argparse.ArgumentParser:
    """The flags of `train.py`: those of the course, with the course's defaults, and further ones."""
    parser = Parser(prog="train.py", description="Train a variational autoencoder on 4-bit MNIST.")
    model = parser.add_argument_group("model")
    model.add_argument("--z_dim", type=int, default=20, help="dimensions of the latent space")
    model.add_argument("--num_filters", type=int, default=32, help="channels of the first convolution")

    training = parser.add_argument_group("training")
    training.add_argument("--lr", type=float, default=1e-3, help="learning rate of Adam")
    training.add_argument("--ema", type=float, default=0.0, metavar="DECAY",
                          help="validate, test and save an exponential moving average of the weights with this decay, "
                          "for example 0.9998; 0: no average")  # fmt: skip
    training.add_argument("--batch_size", type=int, default=128, help="images in a batch, on each device")
    training.add_argument("--epochs", type=int, default=80,
                          help="passes over the training set; for a resumed run, the total")  # fmt: skip
    training.add_argument("--seed", type=int, default=42, help="seed of weights, batches, noise and samples")
    training.add_argument("--resume", nargs="?", const="newest", metavar="RUN",
                          help="resume a run: its directory, or its name (version_3); without RUN, the newest "
                          "(default: start a new run)")  # fmt: skip
    training.add_argument("--importance_samples", type=int, default=0, metavar="K",
                          help="after training, compute the importance-weighted bound on the test likelihood with K "
                          "samples per image; 0: none")  # fmt: skip

    data = parser.add_argument_group("data and logs")
    data.add_argument("--dataset", choices=DATASETS, default="mnist",
                      help="digits: the 1,797 small digits inside scikit-learn, which need no download")  # fmt: skip
    data.add_argument("--data_dir", default=DATA_DIR,
                      help="directory that holds MNIST/raw; MNIST is downloaded there if it is missing")  # fmt: skip
    data.add_argument("--num_workers", type=int, default=0,
                      help="data loader processes; 0 is fastest, since the images are already in memory")  # fmt: skip
    data.add_argument("--log_dir", default=LOG_DIR, help="directory in which run directories are created")
    data.add_argument("--progress_bar", action="store_true",
                      help="show a progress bar even if the output is not a terminal")  # fmt: skip

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
    """Parse and check the command line of `train.py`. The result's `given` names the flags that stood on it."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    args.given = frozenset(vars(parser.parse_args(argv)))
    exit_if_bad(check_flags, args, parser)
    return args


def resolve_settings(args: argparse.Namespace, read_checkpoint: Callable[[Path], dict]) -> argparse.Namespace:
    """The one place where flags are completed, merged with those of a resumed run, checked, and made absolute paths.

    Args:
        args: flags of `train.py`, as of `parse_args`, or any of them in a namespace.
        read_checkpoint: returns the content of a checkpoint file, with its `epoch` and `flags`.

    Returns:
        All flags, with absolute paths (as text) for `data_dir` and `log_dir`, and
        `given`: names of the flags that the user set;
        `checkpoint`, `version`, `saved`, `run_dir`: path of the checkpoint to resume from, its `file_version`, its
        content, and its run directory; None in a new run.

    Raises:
        InputError: a flag makes no sense, the run cannot be resumed, or its directory cannot be written.
    """
    settings = with_defaults(args)
    check_flags(settings)
    log_dir = resolve_path(settings.log_dir, default=LOG_DIR)
    checkpoint = version = saved = run_dir = None
    if settings.resume is not None:
        checkpoint = find_checkpoint(settings.resume, log_dir, "last")
        version, saved = file_version(checkpoint), read_checkpoint(checkpoint)
        run_dir = run_dir_of(checkpoint, "--resume")
        settings = merge_resumed_flags(settings, saved["flags"])
        finished = saved["epoch"] + 1
        complete = (run_dir / "summary.json").exists() and "importance_samples" not in settings.given
        if finished > settings.epochs or (finished == settings.epochs and complete):
            raise InputError(f"the run has already finished epoch {finished}: raise --epochs to continue it")
    check_flags(settings)
    ensure_writable(run_dir or log_dir, "run to --resume" if run_dir else "--log_dir", keep=False)
    settings.log_dir, settings.data_dir = str(log_dir), str(resolve_path(settings.data_dir, default=DATA_DIR))
    settings.checkpoint, settings.version, settings.saved, settings.run_dir = checkpoint, version, saved, run_dir
    return settings


def with_defaults(args: argparse.Namespace) -> argparse.Namespace:
    """`args` with a default for every flag that is missing, and without anything that is no flag."""
    defaults = vars(build_parser().parse_args([]))
    values = {name: value for name, value in vars(args).items() if name in defaults}
    given = vars(args).get("given", {name for name, value in values.items() if value != defaults[name]})
    return argparse.Namespace(**{**defaults, **values, "given": frozenset(given)})


def merge_resumed_flags(args: argparse.Namespace, flags: dict) -> argparse.Namespace:
    """`args` for resuming a run that was started with `flags`, which replace the flags that were not given.

    Raises:
        InputError: a flag in IDENTITY was given with another value than the run's.
    """
    values = vars(args).copy()
    flags = {**vars(build_parser().parse_args([])), **flags}  # defaults for flags that the run does not know yet
    for name in IDENTITY:
        if name in args.given and values[name] != flags[name]:
            raise InputError(
                f"--{name} {values[name]} was given, but the run to resume was started with --{name} {flags[name]}: "
                "leave the flag out, or start a new run without --resume"
            )
        values[name] = flags[name]
    for name in ("epochs", "precision", "importance_samples", "accelerator", "devices", "num_nodes", "strategy",
                 "compile", "deterministic"):  # fmt: skip
        if name not in args.given:
            values[name] = flags[name]
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


def check_flags(args: argparse.Namespace) -> None:
    """Raises InputError for the first flag whose value makes no sense."""
    check_whole_numbers(args, LIMITS)
    check_positive(args, ["lr"])
    if not 0 <= args.ema < 1:  # NaN is refused, too
        raise InputError(f"--ema must be a number of at least 0 and below 1, not {args.ema}")
    check_devices_flag(args.devices)
    check_choices(args, {"dataset": DATASETS, "precision": PRECISIONS, "accelerator": ACCELERATORS,
                         "strategy": STRATEGIES})  # fmt: skip
    check_paths(args, PATHS)


# ------------------------------------------------------------------------------------------------ flags of generate.py


def build_generate_parser() -> argparse.ArgumentParser:
    """The flags of `generate.py`."""
    parser = Parser(prog="generate.py", description="Draw pictures from a trained VAE.")
    parser.add_argument("--checkpoint", default="newest", metavar="RUN",
                        help="a run directory, a run's name in --log_dir, a checkpoint file, or 'newest'")  # fmt: skip
    parser.add_argument("--log_dir", default=LOG_DIR,
                        help="directory of the runs; 'newest' looks into all directories below it")  # fmt: skip
    parser.add_argument("--output_dir", help="where the pictures go (default: 'generated' in the run directory)")
    parser.add_argument("--pictures", nargs="+", choices=PICTURES,
                        help="what to draw (default: all, but the manifold only for z_dim 2)")  # fmt: skip
    parser.add_argument("--num_samples", type=int, default=64, help="number of samples")
    parser.add_argument("--digits", nargs=2, type=int, default=(3, 8), metavar=("A", "B"),
                        help="interpolate between images of these two digits")  # fmt: skip
    parser.add_argument("--steps", type=int, default=10, help="images of an interpolation, both ends included")
    parser.add_argument("--data_dir", help="directory that holds MNIST/raw (default: that of the training)")
    parser.add_argument("--seed", type=int, default=42, help="seed of the samples")
    return parser


def parse_generate_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line of `generate.py`."""
    parser = build_generate_parser()
    args = parser.parse_args(argv)
    exit_if_bad(check_generate_flags, args, parser)
    return args


def check_generate_flags(args: argparse.Namespace) -> None:
    """Raises InputError for the first flag whose value makes no sense."""
    check_whole_numbers(args, GENERATE_LIMITS)
    check_paths(args, ["checkpoint", "log_dir", "output_dir", "data_dir"])
    if not all(0 <= digit <= 9 for digit in args.digits):
        raise InputError(f"--digits must be two numbers from 0 to 9, not {args.digits[0]} {args.digits[1]}")


# --------------------------------------------------------------------------------------------------------------- paths


def find_checkpoint(run: str | Path, log_dir: Path, which: str) -> Path:
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

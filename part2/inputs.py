"""What a user hands over: flags and paths, and the error for those that make no sense.

Only the standard library is imported here, so that `train.py --help` answers at once.
"""

import argparse
import math
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA_DIR = "../data/"
LOG_DIR = "AAE_logs/"
DATASETS = ("mnist", "digits")
# "16-true" is left out: Adam's eps, and the squares of gradients that it keeps, are too small for float16.
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true")
STRATEGIES = ("auto", "ddp")
# What makes a run the run it is: to continue it with another value would make a run that nothing else can repeat.
IDENTITY = ("z_dim", "batch_size", "lambda_", "ae_lr", "d_lr", "seed", "dataset")


class InputError(Exception):
    """Something given by the user cannot be used; the message is one sentence that says what to do about it."""


class NoDataError(InputError):
    """MNIST is neither there nor to be downloaded."""


class NotFiniteError(InputError):
    """A loss became NaN or infinite."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage of every flag before it."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def beside(path: str | Path, default: str) -> Path:
    """Absolute form of `path`: the course's own relative `default` is seen from this folder, whichever directory the
    script is started in; every other path from where the user is."""
    return (HERE / path if Path(path) == Path(default) else Path(path).expanduser()).resolve()


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
        description="Train an adversarial autoencoder on MNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    model = parser.add_argument_group("model")
    model.add_argument("--z_dim", type=int, default=8, help="dimensions of the latent space")
    model.add_argument("--lambda_", type=float, default=0.995,
                       help="weight of the reconstruction against the generator's loss; 1: an ordinary autoencoder, "
                       "whose discriminator only watches")  # fmt: skip

    training = parser.add_argument_group("training")
    training.add_argument("--ae_lr", type=float, default=1e-3, help="learning rate of encoder and decoder (Adam)")
    training.add_argument("--d_lr", type=float, default=5e-3, help="learning rate of the discriminator (SGD)")
    training.add_argument("--batch_size", type=int, default=64, help="images a step")
    training.add_argument("--epochs", type=int, default=100, help="passes over the training set, resumed ones included")
    training.add_argument("--seed", type=int, default=42, help="seed of weights, batches, noise and samples")
    training.add_argument("--resume", nargs="?", const="newest", metavar="RUN",
                          help="continue a run: its folder, its name, or, without a value, the newest")  # fmt: skip

    data = parser.add_argument_group("data and logs")
    data.add_argument("--dataset", choices=DATASETS, default="mnist",
                      help="digits: 1,797 small digits inside scikit-learn, which need no network")  # fmt: skip
    data.add_argument("--data_dir", default=DATA_DIR, help="folder with MNIST/raw; MNIST is downloaded if it is absent")
    data.add_argument("--num_workers", type=int, default=0,
                      help="loader processes; a batch is one index operation, so 0 is fastest")  # fmt: skip
    data.add_argument("--log_dir", default=LOG_DIR, help="folder of all runs")
    data.add_argument("--progress_bar", action="store_true", help="show a bar even where the output is no terminal")

    machine = parser.add_argument_group("machine")
    cuda = machine.add_mutually_exclusive_group()
    cuda.add_argument("--no-cuda", action="store_true", help="stay on the CPU where there is a GPU")
    cuda.add_argument("--cuda", dest="no_cuda", action="store_false", default=argparse.SUPPRESS,
                      help="to --resume a run on the GPU that was started with --no-cuda")  # fmt: skip
    machine.add_argument("--devices", default="1", help="how many GPUs (or CPU processes): a number or 'auto'")
    machine.add_argument("--num_nodes", type=int, default=1, help="how many machines")
    machine.add_argument("--strategy", choices=STRATEGIES, default="auto",
                         help="auto: one process, and ddp for several devices")  # fmt: skip
    machine.add_argument("--precision", choices=PRECISIONS, default="32-true", help="number format of the training")
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
    for name in ("data_dir", "log_dir"):  # a Path in a run's record could not be written
        setattr(args, name, str(getattr(args, name)))
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
        if name in args.given and values[name] != flags[name]:
            raise InputError(
                f"--{name} {values[name]} was given, but the run to resume was started with --{name} {flags[name]}: "
                "leave the flag out, or start a new run without --resume"
            )
        values[name] = flags[name]
    for name in ("epochs", "no_cuda", "precision", "devices", "num_nodes", "strategy"):
        if name not in args.given:
            values[name] = flags[name]
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
            if action.nargs == 0:  # a switch, of which there may be another for the opposite
                words += action.option_strings[:1] if value == action.const else []
            else:
                words += [action.option_strings[0], str(value)]
    return words


def check(args: argparse.Namespace) -> None:
    """Raises InputError for the first flag whose value makes no sense."""
    for name, least in (("z_dim", 1), ("batch_size", 1), ("epochs", 1), ("num_nodes", 1), ("num_workers", 0),
                        ("seed", 0)):  # fmt: skip
        value = getattr(args, name)
        if not isinstance(value, int) or value < least:
            raise InputError(f"--{name} must be a whole number of at least {least}, not {value}")
    if args.seed >= 2**32:
        raise InputError(f"--seed must be below 2**32, not {args.seed}")
    if not 0 <= args.lambda_ <= 1:  # which NaN is not either
        raise InputError(f"--lambda_ must be a number from 0 to 1, not {args.lambda_}")
    for name in ("ae_lr", "d_lr"):
        value = getattr(args, name)
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name} must be a positive number, not {value}")
    if str(args.devices) != "auto" and (not str(args.devices).isdecimal() or int(args.devices) < 1):
        raise InputError(f"--devices must be 'auto' or a whole number of at least 1, not {args.devices}")
    for name, choices in (("dataset", DATASETS), ("precision", PRECISIONS), ("strategy", STRATEGIES)):
        if (value := getattr(args, name)) not in choices:
            raise InputError(f"--{name} must be one of {', '.join(choices)}, not {value}")


def resolve_strategy(args: argparse.Namespace, num_gpus: int) -> str:
    """Fabric's name for the way in which the processes share their gradients.

    Each step of this training uses one player's parameters alone, and ddp must be told that some can be left out.
    """
    devices = max(1, num_gpus) if args.devices == "auto" else int(args.devices)
    if args.strategy == "auto" and devices * args.num_nodes == 1:
        return "auto"
    return "ddp_find_unused_parameters_true"

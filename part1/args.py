"""The flags of `train.py` and `generate.py`. Only the standard library is imported: errors in flags appear at once."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from run import HERE, InputError, Parser, number, path, resolve_args, whole_number

LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"  # in a run directory
PICTURES = ("samples", "reconstructions", "interpolations", "manifold")
# A resumed run keeps these flags: with another value, no uninterrupted run could reproduce it.
FIXED = ("z_dim", "num_filters", "lr", "lr_schedule", "batch_size", "seed", "dataset")


def build_parser() -> Parser:
    """The flags of `train.py`: those of the course, with the course's defaults, and further ones."""
    parser = Parser("train.py", "Train a variational autoencoder on 4-bit MNIST.")
    model = parser.add_argument_group("model")
    model.add_argument("--z_dim", type=whole_number(1, 10_000), default=20, help="dimensions of the latent space")
    model.add_argument("--num_filters", type=whole_number(1, 4096), default=32,
                       help="channels of the first convolution")  # fmt: skip

    training = parser.add_argument_group("training")
    training.add_argument("--lr", type=number("above 0", lambda lr: lr > 0), default=1e-3,
                          help="learning rate of Adam")  # fmt: skip
    training.add_argument("--lr_schedule", choices=("constant", "one-cycle"), default="constant",
                          help="one-cycle: rise to 4 times --lr, then fall to nearly 0 by the last epoch")  # fmt: skip
    training.add_argument("--batch_size", type=whole_number(1, 10**6), default=128,
                          help="images in a batch, on each device")  # fmt: skip
    training.add_argument("--epochs", type=whole_number(1, 10**6), default=80,
                          help="passes over the training set; for a resumed run, the total")  # fmt: skip
    training.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=42,
                          help="seed of weights, batches, noise and samples")  # fmt: skip
    training.add_argument("--resume", nargs="?", const="newest", default=argparse.SUPPRESS, metavar="RUN",
                          help="resume a run: its directory, or its name (version_3); without RUN, the newest "
                          "(default: start a new run)")  # fmt: skip
    training.add_argument("--importance_samples", type=whole_number(0, 10**6), default=0, metavar="K",
                          help="after training, compute the importance-weighted bound on the test likelihood with K "
                          "samples per image; 0: none")  # fmt: skip

    data = parser.add_argument_group("data and logs")
    data.add_argument("--dataset", choices=("mnist", "digits"), default="mnist",
                      help="digits: the 1,797 small digits inside scikit-learn, which need no download")  # fmt: skip
    data.add_argument("--data_dir", type=path, default=str(HERE.parent / "data"),
                      help="directory that holds MNIST/raw; MNIST is downloaded there if it is missing")  # fmt: skip
    data.add_argument("--num_workers", type=whole_number(0, 256), default=0,
                      help="data loader processes; 0 is fastest, since the images are already in memory")  # fmt: skip
    data.add_argument("--log_dir", type=path, default=str(HERE / "VAE_logs"),
                      help="directory in which run directories are created")  # fmt: skip
    data.add_argument("--progress_bar", action="store_true",
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
    return build_parser().parse_given(argv)


def complete_args(args: argparse.Namespace, read: Callable[[Path], dict]) -> tuple:
    """All flags of a training; directory and checkpoint of the run to resume. See `run.resolve_args`."""
    args, run_dir, saved = resolve_args(args, build_parser(), FIXED, LAST, read)
    if saved and args.lr_schedule == "one-cycle" and args.epochs != (planned := saved["flags"]["epochs"]):
        raise InputError(f"the one-cycle schedule of the run to resume was planned for --epochs {planned}: leave the "
                         "flag out, or start a new run")  # fmt: skip
    return args, run_dir, saved


def build_generate_parser() -> Parser:
    """The flags of `generate.py`."""
    parser = Parser("generate.py", "Draw pictures from a trained VAE.")
    parser.add_argument("--checkpoint", default="newest", metavar="RUN",
                        help="a run directory, a run's name in --log_dir, a checkpoint file, or 'newest'")  # fmt: skip
    parser.add_argument("--log_dir", type=path, default=str(HERE / "VAE_logs"),
                        help="directory of the runs; 'newest' looks into all directories below it")  # fmt: skip
    parser.add_argument("--output_dir", type=path, default=argparse.SUPPRESS,
                        help="where the pictures go (default: 'generated' in the run directory)")  # fmt: skip
    parser.add_argument("--pictures", nargs="+", choices=PICTURES, default=argparse.SUPPRESS,
                        help="what to draw (default: all, but the manifold only for z_dim 2)")  # fmt: skip
    parser.add_argument("--num_samples", type=whole_number(1, 10_000), default=64, help="number of samples")
    parser.add_argument("--digits", nargs=2, type=whole_number(0, 9), default=(3, 8), metavar=("A", "B"),
                        help="interpolate between images of these two digits")  # fmt: skip
    parser.add_argument("--steps", type=whole_number(2, 1000), default=10,
                        help="images of an interpolation, both ends included")  # fmt: skip
    parser.add_argument("--data_dir", type=path, default=argparse.SUPPRESS,
                        help="directory that holds MNIST/raw (default: that of the training)")  # fmt: skip
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=42, help="seed of the samples")
    return parser

"""The flags of `train.py` and `generate.py`. Only the standard library is imported: errors in flags appear at once."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from run import HERE, Parser, number, path, resolve_args, whole_number

CHECKPOINT = "checkpoints/model_checkpoint.pt"  # in a run directory
ENCODERS = ("deterministic", "gaussian", "universal")
PICTURES = ("samples", "reconstructions", "interpolations", "manifold")
# A resumed run keeps these flags: with another value, no uninterrupted run could reproduce it.
FIXED = ("z_dim", "encoder", "lambda_", "ae_lr", "d_lr", "batch_size", "seed", "dataset")


def build_parser() -> Parser:
    """The flags of `train.py`: those of the course, with the course's defaults, and further ones."""
    parser = Parser("train.py", "Train an adversarial autoencoder on MNIST.")
    model = parser.add_argument_group("model")
    model.add_argument("--z_dim", type=whole_number(1, 10_000), default=8, help="dimensions of the latent space")
    model.add_argument("--encoder", choices=ENCODERS, default="deterministic",
                       help="posterior q(z|x); deterministic: one code for each image; gaussian: the encoder predicts "
                       "mean and log std; universal: the encoder takes noise together with the image")  # fmt: skip
    model.add_argument("--lambda_", type=number("from 0 to 1", lambda lambda_: 0 <= lambda_ <= 1), default=0.995,
                       help="weight of the reconstruction loss; the generator loss has weight 1 - lambda_; with 1, an "
                       "ordinary autoencoder is trained")  # fmt: skip

    training = parser.add_argument_group("training")
    rate = number("above 0", lambda rate: rate > 0)
    training.add_argument("--ae_lr", type=rate, default=1e-3, help="learning rate of encoder and decoder (Adam)")
    training.add_argument("--d_lr", type=rate, default=5e-3, help="learning rate of the discriminator (SGD)")
    training.add_argument("--batch_size", type=whole_number(1, 10**6), default=64,
                          help="images in a batch, on each device")  # fmt: skip
    training.add_argument("--epochs", type=whole_number(1, 10**6), default=100,
                          help="passes over the training set; for a resumed run, the total")  # fmt: skip
    training.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=42,
                          help="seed of weights, batches, noise and samples")  # fmt: skip
    training.add_argument("--resume", nargs="?", const="newest", default=argparse.SUPPRESS, metavar="RUN",
                          help="resume a run: its directory, or its name (version_3); without RUN, the newest "
                          "(default: start a new run)")  # fmt: skip

    data = parser.add_argument_group("data and logs")
    data.add_argument("--dataset", choices=("mnist", "digits"), default="mnist",
                      help="digits: the 1,797 small digits inside scikit-learn, which need no download")  # fmt: skip
    data.add_argument("--data_dir", type=path, default=str(HERE.parent / "data"),
                      help="directory that holds MNIST/raw; MNIST is downloaded there if it is missing")  # fmt: skip
    data.add_argument("--num_workers", type=whole_number(0, 256), default=0,
                      help="data loader processes; 0 is fastest, since the images are already in memory")  # fmt: skip
    data.add_argument("--log_dir", type=path, default=str(HERE / "AAE_logs"),
                      help="directory in which run directories are created")  # fmt: skip
    data.add_argument("--progress_bar", action="store_true",
                      help="show a progress bar even if the output is not a terminal")  # fmt: skip

    machine = parser.add_argument_group("machine")
    machine.add_argument("--no-cuda", action="store_true", help="train on the CPU even if there is a GPU")
    machine.add_argument("--devices", type=whole_number(1, os.cpu_count() or 1), default=1,
                         help="number of GPUs (or of CPU processes)")  # fmt: skip
    machine.add_argument("--num_nodes", type=whole_number(1, 10_000), default=1, help="number of machines")
    machine.add_argument("--strategy", choices=("auto", "ddp"), default="auto",
                         help="auto: ddp if there are several devices, else a single process")  # fmt: skip
    machine.add_argument("--precision", choices=("32-true", "16-mixed", "bf16-mixed"), default="32-true",
                         help="number format of the training")  # fmt: skip
    machine.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False,
                         help="compile the networks with torch.compile")  # fmt: skip
    machine.add_argument("--deterministic", action=argparse.BooleanOptionalAction, default=False,
                         help="on a GPU: the same results in each run, but slower")  # fmt: skip
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags of a command line of `train.py`; None where a flag was not given."""
    return build_parser().parse_given(argv)


def complete_args(args: argparse.Namespace, read: Callable[[Path], dict]) -> tuple:
    """All flags of a training; directory and checkpoint of the run to resume. See `run.resolve_args`."""
    return resolve_args(args, build_parser(), FIXED, CHECKPOINT, read)


def build_generate_parser() -> Parser:
    """The flags of `generate.py`."""
    parser = Parser("generate.py", "Draw pictures from a trained adversarial autoencoder.")
    parser.add_argument("--checkpoint", default="newest", metavar="RUN",
                        help="a run directory, a run's name in --log_dir, a checkpoint file, or 'newest'")  # fmt: skip
    parser.add_argument("--log_dir", type=path, default=str(HERE / "AAE_logs"),
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
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=42,
                        help="seed of the samples and of the encoder's noise")  # fmt: skip
    return parser

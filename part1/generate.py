"""Draw pictures from a trained VAE: samples, reconstructions, the latent plane, and the way from one digit to another.

`python generate.py --help` lists the flags.
"""

import argparse
import sys
from pathlib import Path

from inputs import LOG_DIR, InputError, Parser, beside, make_writable

PICTURES = ("samples", "reconstructions", "interpolations", "manifold")
NEED_DATA = {"reconstructions", "interpolations"}


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="generate.py",
        description="Draw pictures from a trained VAE.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", default="newest", metavar="RUN", help="a run's folder or name, a checkpoint, or 'newest'"
    )
    parser.add_argument(
        "--log_dir", default=LOG_DIR, help="folder of all runs, where names and, however deep, 'newest' are looked up"
    )
    parser.add_argument("--output_dir", help="where the pictures go; the run's folder 'generated' if left out")
    parser.add_argument(
        "--pictures", nargs="+", choices=PICTURES, help="what to draw; all that the model allows if left out"
    )
    parser.add_argument("--num_samples", type=int, default=64, help="how many samples")
    parser.add_argument(
        "--digits", nargs=2, type=int, default=(3, 8), metavar=("A", "B"), help="interpolate between these two"
    )
    parser.add_argument("--steps", type=int, default=10, help="pictures of an interpolation, its ends included")
    parser.add_argument("--data_dir", help="folder with MNIST/raw; the one the run was trained from if left out")
    parser.add_argument("--seed", type=int, default=42, help="seed of the samples")
    return parser


def check(args: argparse.Namespace) -> None:
    """Raises InputError for the first flag whose value makes no sense."""
    if args.num_samples < 1:
        raise InputError(f"--num_samples must be at least 1, not {args.num_samples}")
    if not 0 <= args.seed < 2**32:
        raise InputError(f"--seed must be at least 0 and below 2**32, not {args.seed}")
    if args.steps < 2:
        raise InputError(f"--steps must be at least 2, the two ends, not {args.steps}")
    if not all(0 <= digit <= 9 for digit in args.digits):
        raise InputError(f"--digits must be two numbers from 0 to 9, not {args.digits[0]} {args.digits[1]}")


def check_data_dir(args: argparse.Namespace, flags: dict, needed: bool) -> None:
    """Raises InputError where --data_dir would be ignored, and where the images that a run with these `flags` was
    trained from are `needed` and their folder is not there."""
    if args.data_dir and flags["dataset"] == "digits":
        raise InputError(
            f"--data_dir {args.data_dir} was given, but the run was trained on the built-in digits: leave the flag out"
        )
    if needed and flags["dataset"] == "mnist" and not args.data_dir and not Path(flags["data_dir"]).is_dir():
        raise InputError(
            f"{flags['data_dir']}, which the run was trained from, is not there any more: give the folder above "
            "MNIST/raw with --data_dir"
        )


def generate(args: argparse.Namespace) -> list[Path]:
    """Write the pictures that the flags ask for; returns their paths.

    Raises:
        InputError: a flag, the checkpoint, the data or the output folder cannot be used.
    """
    import torch
    from torchvision.utils import save_image

    from mnist import load_data
    from pictures import interpolation_grid, reconstruction_grid, sample_grid
    from run_folder import find_checkpoint, run_of
    from train_pl import load_vae
    from utils import visualize_manifold

    check(args)
    path = find_checkpoint(args.checkpoint, beside(args.log_dir, LOG_DIR), "best")
    model, checkpoint = load_vae(path)
    z_dim = model.hparams.z_dim
    wanted = args.pictures or [name for name in PICTURES if name != "manifold" or z_dim == 2]
    if "manifold" in wanted and z_dim != 2:
        raise InputError(
            f"the manifold needs a model with z_dim 2, and this one has {z_dim}: leave it out of --pictures"
        )
    check_data_dir(args, checkpoint["flags"], needed=bool(NEED_DATA & set(wanted)))
    if args.output_dir:
        folder = Path(args.output_dir).expanduser()
    else:
        folder = run_of(path, "--checkpoint, or a place for the pictures to --output_dir") / "generated"
    make_writable(folder, "--output_dir")
    model.to("cuda" if torch.cuda.is_available() else "cpu")

    images = labels = None
    if NEED_DATA & set(wanted):
        flags = dict(checkpoint["flags"], num_workers=0)
        flags["data_dir"] = args.data_dir or flags["data_dir"]
        images, labels = load_data(argparse.Namespace(**flags))[2].dataset[:]

    drawings = {
        "samples": lambda: sample_grid(model.sample(args.num_samples)),
        "reconstructions": lambda: reconstruction_grid(model, images, labels),
        "interpolations": lambda: interpolation_grid(model, images, labels, tuple(args.digits), args.steps),
        "manifold": lambda: visualize_manifold(model.decoder, grid_size=20),
    }
    torch.manual_seed(args.seed)
    paths = []
    for name in wanted:
        save_image(drawings[name](), folder / f"{name}.png")
        paths.append(folder / f"{name}.png")
    return paths


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 after one sentence about what cannot be used."""
    args = build_parser().parse_args(argv)
    try:
        for path in generate(args):
            print(path)
    except InputError as error:
        print(f"generate.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

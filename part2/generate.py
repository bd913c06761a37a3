"""Draw pictures from a trained adversarial autoencoder: samples, reconstructions, interpolations between two digits,
and the latent plane.

`python generate.py --help` lists the flags.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Flags come first, since importing PyTorch takes seconds. `python -m` and `python -P` need the path.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from cli import start
    from inputs import parse_generate_args

    ARGS = start(parse_generate_args)

import argparse

import torch
from torch import Tensor

from cli import run_command
from evaluation import evaluating
from inputs import (
    LOG_DIR,
    PICTURES,
    InputError,
    build_generate_parser,
    check_generate_flags,
    ensure_writable,
    find_checkpoint,
    resolve_path,
    run_dir_of,
)
from mnist import load_test_images
from pictures import interpolation_grid, manifold_grid, reconstruction_grid, sample_grid, write_picture
from processes import explained_failures
from run_files import naming_failed_writes
from run_folder import load_aae

NEED_DATA = {"reconstructions", "interpolations"}


def check_data_dir(args: argparse.Namespace, flags: dict, needed: bool) -> None:
    """Check `--data_dir` against the flags of the run.

    Args:
        args: has `data_dir`, a directory or None.
        flags: those of the training.
        needed: whether images are needed at all.

    Raises:
        InputError: `--data_dir` would be ignored, or the images that the run was trained on are gone.
    """
    if args.data_dir and flags["dataset"] == "digits":
        raise InputError(
            f"--data_dir {args.data_dir} was given, but the run was trained on the built-in digits: leave the flag out"
        )
    if needed and flags["dataset"] == "mnist" and not args.data_dir and not Path(flags["data_dir"]).is_dir():
        raise InputError(
            f"{flags['data_dir']}, from which the run read its images, does not exist any more: give the directory "
            "above MNIST/raw with --data_dir"
        )


def generate(args: argparse.Namespace) -> list[Path]:
    """Write the pictures that the flags ask for. Each starts from the same seed, so that it does not depend on the
    others.

    Args:
        args: flags of `generate.py`.

    Returns:
        Paths of the pictures.

    Raises:
        InputError: a flag, the checkpoint, the data or the output directory cannot be used.
    """
    check_generate_flags(args)
    path = find_checkpoint(args.checkpoint, resolve_path(args.log_dir, default=LOG_DIR))
    model, checkpoint = load_aae(path)
    wanted = args.pictures or [name for name in PICTURES if name != "manifold" or model.z_dim == 2]
    if "manifold" in wanted and model.z_dim != 2:
        raise InputError(
            f"the manifold needs a model with z_dim 2, and this one has {model.z_dim}: leave it out of --pictures"
        )
    needs_data = bool(NEED_DATA & set(wanted))
    check_data_dir(args, checkpoint["flags"], needs_data)
    if args.output_dir:
        output_dir = resolve_path(args.output_dir)
    else:
        output_dir = run_dir_of(path, "--checkpoint, or a directory for the pictures to --output_dir") / "generated"
    ensure_writable(output_dir, "--output_dir", keep=False)
    images = labels = None
    if needs_data:
        data_dir = str(resolve_path(args.data_dir)) if args.data_dir else checkpoint["flags"]["data_dir"]
        images, labels = load_test_images(argparse.Namespace(**{**checkpoint["flags"], "data_dir": data_dir}))

    model.to("cuda" if torch.cuda.is_available() else "cpu")
    drawings = {
        "samples": lambda: sample_grid(model.sample(args.num_samples)),
        "reconstructions": lambda: reconstruction_grid(model, three_of_each_digit(images, labels)),
        "interpolations": lambda: interpolation_grid(model, images, labels, tuple(args.digits), args.steps),
        "manifold": lambda: manifold_grid(model.decoder),
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in wanted:
        with evaluating(model, args.seed), naming_failed_writes(output_dir):
            write_picture(output_dir / f"{name}.png", drawings[name]())
        paths.append(output_dir / f"{name}.png")
    return paths


def three_of_each_digit(images: Tensor, labels: Tensor) -> Tensor:
    """Three rows of the digits 0 .. 9, [30, 1, H, W]."""
    chosen = torch.stack([images[labels == digit][:3] for digit in range(10)], dim=1)  # (3, 10, 1, H, W)
    return chosen.flatten(end_dim=1)


def print_paths(args: argparse.Namespace) -> None:
    """Draw the pictures, and print the paths of their files."""
    with explained_failures(lower="--num_samples or --steps"):
        for path in generate(args):
            print(path)


def main(args: argparse.Namespace | list[str] | None = None) -> int:
    """Run the command line, parsed or not. Returns the exit code: 0, 2 after one sentence about bad input, or
    128 + number after a signal."""
    if not isinstance(args, argparse.Namespace):
        args = build_generate_parser().parse_args(args)
    return run_command(print_paths, args, "generate.py")


if __name__ == "__main__":
    raise SystemExit(main(ARGS))

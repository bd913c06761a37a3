"""Draw pictures from a trained adversarial autoencoder: samples, reconstructions, interpolations between two digits,
and the latent plane.

`python generate.py --help` lists the flags.
"""

from args import CHECKPOINT, PICTURES, build_generate_parser

if __name__ == "__main__":
    ARGS = build_generate_parser().parse_given()  # first, since importing PyTorch takes seconds

import argparse
from pathlib import Path

import torch

import pictures
from evaluation import evaluating
from mnist import load_data
from run import InputError, find_run, run_command
from train import load_aae


def generate(args: argparse.Namespace) -> list[Path]:
    """Draw the pictures that the flags ask for; prints and returns the paths of their files. Each starts from the same
    seed, so that it does not depend on the others.

    Args:
        args: flags of `generate.py`; a missing flag has its default.

    Raises:
        InputError: a flag, the checkpoint, the data or the output directory cannot be used.
    """
    parser = build_generate_parser()
    args = argparse.Namespace(**{**parser.default_flags(), **parser.given_flags(args)})
    file = Path(args.checkpoint)
    if not file.is_file():
        file = find_run(args.checkpoint, Path(args.log_dir), CHECKPOINT) / CHECKPOINT
    elif not args.output_dir and file.parent.name != "checkpoints":
        raise InputError(f"{file} is not in a run directory: give a directory for the pictures with --output_dir")
    model, checkpoint = load_aae(file)
    wanted = args.pictures or [name for name in PICTURES if name != "manifold" or model.z_dim == 2]
    if "manifold" in wanted and model.z_dim != 2:
        raise InputError(f"the manifold needs a model with z_dim 2, and this one has {model.z_dim}: leave it out of "
                         "--pictures")  # fmt: skip
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    images = labels = None
    if {"reconstructions", "interpolations"} & set(wanted):
        flags = {**checkpoint["flags"], "num_workers": 0}
        flags["data_dir"] = args.data_dir or flags["data_dir"]
        images, labels = load_data(argparse.Namespace(**flags), torch.device("cpu"))[1].dataset[:]
    draw = {
        "samples": lambda: pictures.sample_grid(model.sample(args.num_samples)),
        "reconstructions": lambda: pictures.reconstruction_grid(model, pictures.first_of_each_digit(images, labels, 3)),
        "interpolations": lambda: pictures.interpolation_grid(model, images, labels, tuple(args.digits), args.steps),
        "manifold": lambda: pictures.manifold_grid(model.decoder),
    }
    output_dir = Path(args.output_dir or file.parents[1] / "generated")
    for name in wanted:
        with evaluating(model, args.seed):
            pictures.write_picture(output_dir / f"{name}.png", draw[name]())
        print(output_dir / f"{name}.png")
    return [output_dir / f"{name}.png" for name in wanted]


if __name__ == "__main__":
    raise SystemExit(run_command(generate, ARGS))

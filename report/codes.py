"""How far an autoencoder's codes spread, and how many dimensions they fill (questions 2.4, 2.6 and 2.7).

Writes `codes.json`, and for two latent dimensions the codes of some test images as `codes.csv`, into the run directory
of a run of part 2: `python report/codes.py --checkpoint part2/AAE_logs/aae_z2/version_0 --data_dir DATA`
"""
# ruff: noqa: E402

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "part2"))
from args import CHECKPOINT
from run import Parser, atomic_write, find_run, path, run_command, whole_number


def build_parser() -> Parser:
    parser = Parser("codes.py", __doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", required=True, default=argparse.SUPPRESS, metavar="RUN",
                        help="a run directory of part 2, or its checkpoint")  # fmt: skip
    parser.add_argument("--data_dir", type=path, default=argparse.SUPPRESS,
                        help="directory that holds MNIST/raw (default: that of the training)")  # fmt: skip
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, help="seed of the draws from the prior")
    parser.add_argument("--output_dir", type=path, default=argparse.SUPPRESS,
                        help="where the files go (default: the run directory)")  # fmt: skip
    return parser


if __name__ == "__main__":
    ARGS = build_parser().parse_given()  # first, since importing PyTorch takes seconds

import torch
from torch import Tensor

from evaluation import evaluating
from mnist import load_data
from train import load_aae

SHOWN = 2000  # codes in the table, enough for a picture


def intrinsic_dimension(points: Tensor) -> float:
    """Dimension of what the points [N, D] lie on, by the ratio of the distances to the two nearest neighbours: its
    logarithm has mean 1 / d where the density is locally constant (Facco et al., 2017; here by maximum likelihood).
    Points that coincide with others are left out."""
    nearest = []
    for piece in points.split(500):
        # Differences and not products of the points, which would cancel between near neighbours.
        distances = torch.cdist(piece, points, compute_mode="donot_use_mm_for_euclid_dist")
        nearest.append(distances.topk(3, largest=False).values[:, 1:])  # the first is the point itself
    nearest = torch.cat(nearest).double()  # (N, 2)
    apart = nearest[nearest[:, 0] > 0]
    return (1 / (apart[:, 1] / apart[:, 0]).log().mean()).item()


def table(codes: Tensor, labels: Tensor) -> str:
    """Codes [N, 2] and labels [N] as CSV with three decimals."""
    rows = zip(codes.tolist(), labels.tolist(), strict=True)
    return "z_1,z_2,label\n" + "".join(f"{z_1:.3f},{z_2:.3f},{label}\n" for (z_1, z_2), label in rows)


def compute(args: argparse.Namespace) -> None:
    """Write the results that the flags ask for, and print the paths of their files; a missing flag has its default."""
    begin, parser = time.perf_counter(), build_parser()
    args = argparse.Namespace(**{**parser.default_flags(), **parser.given_flags(args)})
    run_dir = find_run(args.checkpoint.removesuffix(CHECKPOINT), Path.cwd(), CHECKPOINT)
    output_dir = Path(args.output_dir or run_dir)
    model, checkpoint = load_aae(run_dir / CHECKPOINT)
    flags = {**checkpoint["flags"], "num_workers": 0}
    flags["data_dir"] = args.data_dir or flags["data_dir"]
    images, labels = load_data(argparse.Namespace(**flags), torch.device("cpu"))[1].dataset[:]
    with evaluating(model):
        codes = torch.cat([model.encoder(piece) for piece in images.split(1000)])  # (N, D)
    draws = torch.randn(codes.shape, generator=torch.Generator().manual_seed(args.seed))
    if model.z_dim == 2:
        atomic_write(output_dir / "codes.csv", table(codes[:SHOWN], labels[:SHOWN]))
        print(output_dir / "codes.csv")
    result = {
        "z_dim": model.z_dim,
        "images": len(codes),
        "std": codes.std(dim=0).tolist(),
        "dimension_of_codes": intrinsic_dimension(codes),
        "dimension_of_draws": intrinsic_dimension(draws),
        "command": f"python report/codes.py --checkpoint RUN --seed {args.seed}",
        "seed": args.seed,
        "seconds": round(time.perf_counter() - begin, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic_write(output_dir / "codes.json", json.dumps(result, indent=2) + "\n")
    print(output_dir / "codes.json")


if __name__ == "__main__":
    raise SystemExit(run_command(compute, ARGS))

"""How well log p(x) of test images is estimated with samples from the prior and from the encoder (question 1.2), and,
for two latent dimensions, where the gap of the ELBO is (questions 1.3 and 1.4).

Writes `likelihood.json` into the run directory of a run of part 1:
`python report/likelihood.py --checkpoint part1/VAE_logs/vae_z2/lightning_logs/version_0 --data_dir DATA`
"""
# ruff: noqa: E402

import argparse
import json
import math
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "part1"))
from args import BEST
from run import Parser, atomic_write, find_run, path, run_command, whole_number


def build_parser() -> Parser:
    parser = Parser("likelihood.py", __doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", required=True, default=argparse.SUPPRESS, metavar="RUN",
                        help="a run directory of part 1")  # fmt: skip
    parser.add_argument("--data_dir", type=path, default=argparse.SUPPRESS,
                        help="directory that holds MNIST/raw (default: that of the training)")  # fmt: skip
    parser.add_argument("--images", type=whole_number(1, 10_000), default=16, help="how many test images")
    parser.add_argument("--repetitions", type=whole_number(2, 1000), default=3, help="how often each estimate is made")
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0,
                        help="seed of the draws and of the choice of images")  # fmt: skip
    parser.add_argument("--output_dir", type=path, default=argparse.SUPPRESS,
                        help="where the files go (default: the run directory)")  # fmt: skip
    return parser


if __name__ == "__main__":
    ARGS = build_parser().parse_given()  # first, since importing PyTorch takes seconds

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation import log_importance_weights
from mnist import load_data
from train_pl import load_vae
from utils import KLD

SAMPLES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)


@torch.no_grad()
def log_likelihoods(decoder, z: Tensor, images: Tensor, batch_size: int = 500) -> Tensor:
    """log p(x_n | z_l) in nats for all pairs, by one matrix product of log probabilities and one-hot pixels.

    Args:
        decoder: maps [B, D] to logits [B, 16, 28, 28].
        z: [L, D].
        images: long [N, 1, 28, 28] with values 0 .. 15.
        batch_size: latent vectors that are decoded at once.

    Returns:
        [L, N].
    """
    pixels = F.one_hot(images.flatten(start_dim=1), 16).transpose(1, 2).flatten(start_dim=1).to(z)  # (N, 16*784)
    result = z.new_empty(len(z), len(images))  # in one piece: small ones would lie between what is used again and again
    for rows, piece in zip(result.split(batch_size), z.split(batch_size), strict=True):
        torch.mm(decoder(piece).log_softmax(dim=1).flatten(start_dim=1), pixels.T, out=rows)
    return result


def log_mean_of_first(log_weights: Tensor, counts: tuple[int, ...]) -> Tensor:
    """log of the mean of the first L weights for each L in counts: [len(counts), N] of [max(counts), N]."""
    return torch.stack([log_weights[:count].logsumexp(dim=0) - math.log(count) for count in counts])


def from_prior(model, images: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Estimates of log p(x) with L samples from the prior (eq. 8 of the assignment), [len(counts), N]."""
    z = torch.randn(max(counts), model.hparams.z_dim, device=images.device)
    return log_mean_of_first(log_likelihoods(model.decoder, z, images).double(), counts)


def from_encoder(model, images: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Estimates of log p(x) with L samples from q(z|x), weighted by p(z) / q(z|x), [len(counts), N]."""
    pieces, left = [], max(counts)
    while left:
        pieces.append(log_importance_weights(model, images, min(left, max(1, 1000 // len(images)))).double())
        left -= len(pieces[-1])
    return log_mean_of_first(torch.cat(pieces), counts)


@torch.no_grad()
def gaps(model, images: Tensor, reach: float = 5.0, spacing: float = 0.025) -> list[dict[str, float]]:
    """log p(x), ELBO and KL(q(z|x) || p(z|x)) in nats of each image, for two latent dimensions.

    log p(x) is the integral of p(x|z) p(z), and the divergence that of q log(q / p(z|x)), both over a regular grid on
    a square around the origin, which reaches as far as `reach` and beyond the codes of all the images. Its `spacing` is
    smaller where a q is narrower. The ELBO comes without the grid: its KL term in closed form, its expectation by
    Gauss-Hermite quadrature.
    """
    mean, log_std = model.encoder(images)
    reach = max(reach, (mean.abs() + 8 * log_std.exp()).max().item())  # unusual images have codes far out
    spacing = min(spacing, 1.25 * log_std.exp().min().item())  # so that a sum over q is 1 within 1e-5
    steps = math.ceil(reach / spacing)
    axis = torch.arange(-steps, steps + 1, device=mean.device) * spacing
    z = torch.cartesian_prod(axis, axis)  # (P, 2)
    log_cell = 2 * math.log(spacing)
    log_prior = -0.5 * z.double().square().sum(dim=1) - math.log(2 * math.pi)  # (P)
    joint = log_likelihoods(model.decoder, z, images).double() + log_prior[:, None]  # (P, N)
    log_px = joint.logsumexp(dim=0) + log_cell  # (N)
    nodes, weights = (values.to(mean.device) for values in hermite(20))
    rows = []
    for n in range(len(images)):
        mu, std = mean[n].double(), log_std[n].double().exp()
        log_q = -0.5 * ((z.double() - mu) / std).square().sum(dim=1) - std.log().sum() - math.log(2 * math.pi)
        q = (log_q + log_cell).exp()  # (P), sums to one where the grid is fine enough
        posterior = joint[:, n] - log_px[n]
        at = (mu + std * torch.cartesian_prod(nodes, nodes)).float()  # (400, 2)
        expected = (torch.outer(weights, weights).flatten() * log_likelihoods(
            model.decoder, at, images[n : n + 1]
        )[:, 0].double()).sum()  # fmt: skip
        elbo = expected - KLD(mu, std.log())
        gap = (q * (log_q - posterior)).sum()
        rows.append({"log_px": log_px[n].item(), "elbo": elbo.item(), "gap": gap.item(), "q_on_grid": q.sum().item(),
                     "std": std.tolist()})  # fmt: skip
    return rows


def hermite(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for expectations under N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights / math.sqrt(2 * math.pi))


def compute(args: argparse.Namespace) -> None:
    """Write the results that the flags ask for, and print the paths of their files; a missing flag has its default."""
    parser = build_parser()
    args = argparse.Namespace(**{**parser.default_flags(), **parser.given_flags(args)})
    run_dir = find_run(args.checkpoint.removesuffix(BEST), Path.cwd(), BEST)
    output_dir = Path(args.output_dir or run_dir)
    model, checkpoint = load_vae(run_dir / BEST)
    flags = {**checkpoint["flags"], "num_workers": 0}
    flags["data_dir"] = args.data_dir or flags["data_dir"]
    images = load_data(argparse.Namespace(**flags), torch.device("cpu"))[2].dataset[:][0][: args.images]
    begin, z_dim = time.perf_counter(), model.hparams.z_dim
    torch.manual_seed(args.seed)
    estimates = {"prior": [], "encoder": []}
    with torch.no_grad():
        for _ in range(args.repetitions):
            estimates["prior"].append(from_prior(model, images, SAMPLES))
            estimates["encoder"].append(from_encoder(model, images, SAMPLES[:-2]))
    result = {"z_dim": z_dim, "images": len(images), "repetitions": args.repetitions}
    for name, repeated in estimates.items():
        values = torch.stack(repeated)  # (R, len(counts), N)
        result[name] = {
            "samples": list(SAMPLES[: values.size(1)]),
            "mean_log_px": values.mean(dim=(0, 2)).tolist(),
            # Of one estimate of one image, around the image's own mean.
            "std": values.std(dim=0).square().mean(dim=1).sqrt().tolist(),
        }
    if z_dim == 2:
        result["gaps"] = gaps(model, images)
    result |= {
        "command": f"python report/likelihood.py --checkpoint RUN --images {args.images} "
        f"--repetitions {args.repetitions} --seed {args.seed}",
        "seed": args.seed,
        "seconds": round(time.perf_counter() - begin, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic_write(output_dir / "likelihood.json", json.dumps(result, indent=2) + "\n")
    print(output_dir / "likelihood.json")


if __name__ == "__main__":
    raise SystemExit(run_command(compute, ARGS))

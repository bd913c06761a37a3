"""How many of a model's samples a classifier of digits is sure of (questions 1.8 and 2.4 to 2.7).

Trains the judge, a small convolutional network, on MNIST, and writes `samples.json` into a run directory of part 1 or
2: what the judge says of decoded draws from the prior, of as many test images, and of the 64 samples in each picture of
the run. A folder without a checkpoint, such as those of `report/results`, has its pictures judged:
`python report/judge_samples.py --checkpoint part2/AAE_logs/aae_z20/version_0 --data_dir DATA`
"""
# ruff: noqa: E402

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINTS = {"part1": "checkpoints/best.ckpt", "part2": "checkpoints/model_checkpoint.pt"}
if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY / "part1"))

from run import InputError, Parser, atomic_write, path, run_command, whole_number


def build_parser() -> Parser:
    parser = Parser("judge_samples.py", __doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", required=True, type=path, metavar="RUN", help="a run directory of part 1 or 2")
    parser.add_argument("--data_dir", type=path, default=str(REPOSITORY / "data"), help="directory with MNIST/raw")
    parser.add_argument("--samples", type=whole_number(10, 10_000), default=10_000,
                        help="decoded draws, and test images, to judge")  # fmt: skip
    parser.add_argument("--epochs", type=whole_number(1, 100), default=4, help="epochs of the judge's training")
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, help="seed of the judge and the draws")
    return parser


if __name__ == "__main__":
    ARGS = build_parser().parse_args()  # first, since importing PyTorch takes seconds

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import MNIST
from torchvision.transforms.functional import to_tensor

SURE = 0.95  # probability of the most probable digit, above which the judge is sure of it
Coder = Callable[[Tensor], Tensor]


def train_judge(images: Tensor, labels: Tensor, epochs: int, batch_size: int = 128) -> nn.Module:
    """A classifier of images, float [N, 1, 28, 28] in [0, 1], with labels, long [N]; its outputs are logits [N, 10]."""
    judge = nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=5, padding=2, stride=2), nn.GELU(),  # 28x28 -> 14x14
        nn.Conv2d(32, 64, kernel_size=3, padding=1, stride=2), nn.GELU(),  # 14x14 -> 7x7
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 7 * 7, 128), nn.GELU(), nn.Dropout(0.3), nn.Linear(128, 10),
    )  # fmt: skip
    steps = epochs * math.ceil(len(images) / batch_size)
    optimizer = torch.optim.Adam(judge.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(batch_size):
            loss = F.cross_entropy(judge(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge.eval()


@torch.no_grad()
def probabilities(judge: nn.Module, images: Tensor) -> Tensor:
    """Of the ten digits, [N, 10], for images [N, 1, 28, 28] in [0, 1]."""
    return torch.cat([judge(piece) for piece in images.split(1000)]).softmax(dim=1)


def verdict(probs: Tensor) -> dict:
    """A summary of the `probabilities` [N, 10] of images.

    Returns:
        `images`: N; `sure`: share with a digit that is more probable than SURE; `digits`: share whose most probable
        digit is 0, 1, ..., 9; `entropy`: of these shares in bits, at most log2(10) = 3.32.
    """
    most, digit = probs.max(dim=1)
    shares = digit.bincount(minlength=10) / len(probs)
    return {
        "images": len(probs),
        "sure": (most > SURE).float().mean().item(),
        "digits": shares.tolist(),
        "entropy": torch.special.entr(shares).sum().item() / math.log(2),
    }


def images_of(picture: Path) -> Tensor:
    """The samples [64, 1, 28, 28] in [0, 1] of a picture of 8 x 8, each with two pixels of margin."""
    pixels = to_tensor(Image.open(picture).convert("L"))[:, 2:, 2:]  # (1, 240, 240)
    return pixels.unfold(1, 28, 30).unfold(2, 28, 30).reshape(64, 1, 28, 28)


def coders(run: Path) -> tuple[int, Coder, Coder] | None:
    """Latent dimensions of a run's model, a function that draws the codes [N, D] of images [N, 1, 28, 28] in [0, 1],
    and one that decodes them to mean images; None where the run has no checkpoint."""
    part = next((part for part, file in CHECKPOINTS.items() if (run / file).exists()), None)
    if part is None:
        return None
    checkpoint = run / CHECKPOINTS[part]
    sys.path.insert(0, str(REPOSITORY / part))  # modules of the parts have equal names: only one part's are imported
    if part == "part2":
        from train import load_aae

        model = load_aae(checkpoint)[0]
        return model.z_dim, lambda x: model.encoder(2 * x - 1), lambda z: model.decoder(z) / 2 + 0.5
    from mnist import discretize
    from train_pl import load_vae
    from utils import mean_intensity, sample_reparameterize

    model = load_vae(checkpoint)[0]

    def encode(x: Tensor) -> Tensor:
        mean, log_std = model.encoder(discretize(x, 16))
        return sample_reparameterize(mean, log_std.exp())

    return model.hparams.z_dim, encode, lambda z: mean_intensity(model.decoder(z))


@torch.no_grad()
def judge_model(judge: nn.Module, model: tuple[int, Coder, Coder], images: Tensor) -> dict:
    """What the judge says of as many samples as there are test images [N, 1, 28, 28]; and what its codes are like.

    Returns:
        As of `verdict`; `recon_loss`: mean squared error of the images, with grey values in [-1, 1]; `noise`: standard
        deviation of q(z|x) relative to that of all codes. Two draws z, z' for an image differ by twice the variance of
        q(z|x), E[(z - z')^2] = 2 Var(z); variances are averaged over images and dimensions.
    """
    z_dim, encode, decode = model
    errors, codes, again, samples = [], [], [], []
    for piece in images.split(500):
        codes.append(encode(piece))
        again.append(encode(piece))
        errors.append(4 * (decode(codes[-1]) - piece).square().mean(dim=(1, 2, 3)))
        samples.append(decode(torch.randn(len(piece), z_dim)))
    codes, again = torch.cat(codes), torch.cat(again)  # (N, D)
    noise = ((codes - again).square().mean() / 2 / codes.var(dim=0).mean()).sqrt()
    return {
        **verdict(probabilities(judge, torch.cat(samples))),
        "recon_loss": torch.cat(errors).mean().item(),
        "noise": noise.item(),
    }


def compute(args: argparse.Namespace) -> None:
    """Write the results that the flags ask for, and print the path of their file.

    Raises:
        InputError: the folder has neither a checkpoint nor pictures of samples, or MNIST is not there.
    """
    begin, run = time.perf_counter(), Path(args.checkpoint)
    found = [*run.glob("*epoch_[0-9]*.png"), *run.glob("results/*/*epoch_[0-9]*.png")]
    pictures = {int(re.search(r"epoch_(\d+)", file.name)[1]): file for file in found}
    model = coders(run)
    if not (model or pictures):
        raise InputError(f"{run} has neither a checkpoint nor samples: give a run directory of part 1 or 2")
    try:
        train, test = (MNIST(args.data_dir, train=train) for train in (True, False))
    except RuntimeError as error:
        raise InputError(f"MNIST is not in {args.data_dir}: give the folder above MNIST/raw with --data_dir") from error
    torch.manual_seed(args.seed)
    judge = train_judge(train.data.unsqueeze(1) / 255, train.targets, args.epochs)
    images = test.data.unsqueeze(1) / 255
    probs = probabilities(judge, images)
    torch.manual_seed(args.seed)
    result = {
        **(judge_model(judge, model, images[: args.samples]) if model else {}),
        "pictures": {epoch: verdict(probabilities(judge, images_of(file))) for epoch, file in sorted(pictures.items())},
        "test_images": verdict(probs[: args.samples]),
        "accuracy": (probs.argmax(dim=1) == test.targets).float().mean().item(),
        "command": f"python report/judge_samples.py --checkpoint RUN --samples {args.samples} --epochs {args.epochs} "
        f"--seed {args.seed}",
        "seconds": round(time.perf_counter() - begin, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic_write(run / "samples.json", json.dumps(result, indent=2) + "\n")
    print(run / "samples.json")


if __name__ == "__main__":
    raise SystemExit(run_command(compute, ARGS))

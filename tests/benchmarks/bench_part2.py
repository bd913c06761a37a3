"""Part 2's adversarial autoencoder against the plain pipeline: `python tests/benchmarks/bench_part2.py`.

A measurement trains a new model for 150 of an epoch's 938 steps (`--steps 0`: all). The losses that are compared are
those of the test set; the evaluation is not timed.
"""

import itertools
import os
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "part2"))
import runner

if __name__ == "__main__":
    ARGS = runner.build_parser("bench_part2.py", __doc__, steps=150).parse_args()  # first, since PyTorch takes seconds

import torch
from lightning_fabric import Fabric
from torch.utils.tensorboard import SummaryWriter

import limits
from encoders import build_aae
from evaluation import encode, score_test_images
from mnist import mnist, mnist_test
from train import make_optimizers, train_aae
from utils import TensorBoardLogger

COURSE = {"z_dim": 8, "lambda_": 0.995, "ae_lr": 1e-3, "d_lr": 5e-3}
BATCH_SIZE = 64
STEPS_PER_EPOCH = 938


def ours(args: Namespace) -> runner.Measure:
    """The training of `part2/train.py`."""
    torch.backends.cudnn.benchmark = True
    fabric = Fabric(devices=1)
    fabric.launch()
    test_loader = mnist_test(args.data_dir)

    def step_of(model, x) -> None:
        recon_x, z = model(x)
        model.get_loss_autoencoder(x, recon_x, z, COURSE["lambda_"])[0].backward()
        model.get_loss_discriminator(z)[0].backward()

    x = torch.rand(BATCH_SIZE, 1, 28, 28, device=fabric.device)
    counting = build_aae(COURSE["z_dim"]).to(fabric.device, memory_format=torch.channels_last)
    counted = limits.count(lambda: step_of(counting, x))

    def measure(seed: int, steps: int) -> dict:
        train_loader = mnist(args.data_dir, BATCH_SIZE, num_workers=0, seed=seed)
        train_loader.dataset.to(fabric.device)
        torch.manual_seed(seed)
        model = build_aae(COURSE["z_dim"]).to(memory_format=torch.channels_last)
        wrapped, *optimizers = fabric.setup(model, *make_optimizers(model, COURSE["ae_lr"], COURSE["d_lr"]))
        for method in ("get_loss_autoencoder", "get_loss_discriminator"):
            wrapped.mark_forward_method(method)
        with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
            loggers = [TensorBoardLogger(writer, name=name) for name in ("generator", "discriminator")]
            limits.synchronize()
            start = time.perf_counter()
            batches = itertools.islice(train_loader, steps or None)
            train_aae(1, wrapped, batches, *loggers, *optimizers, COURSE["lambda_"], backward=fabric.backward)
            limits.synchronize()
            seconds = time.perf_counter() - start
        return {"seconds": seconds, "loss": score_test_images(model, test_loader)["recon_loss"], "counted": counted}

    return measure


def baseline(args: Namespace) -> runner.Measure:
    """The plain pipeline."""
    import baseline_aae

    test_loader = mnist_test(args.data_dir)

    def measure(seed: int, steps: int) -> dict:
        torch.manual_seed(seed)
        model = baseline_aae.PlainAAE(COURSE["z_dim"]).to(limits.device())
        loader = baseline_aae.loader(args.data_dir, BATCH_SIZE, num_workers=min(4, os.cpu_count()))
        optimizers = baseline_aae.optimizers(model, COURSE["ae_lr"], COURSE["d_lr"])
        with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
            loggers = [baseline_aae.PlainLogger(writer, name) for name in ("generator", "discriminator")]
            limits.synchronize()
            start = time.perf_counter()
            batches = itertools.islice(loader, steps or None)
            baseline_aae.train(model, batches, *loggers, *optimizers, COURSE["lambda_"])
            limits.synchronize()
            seconds = time.perf_counter() - start
        return {"seconds": seconds, "loss": encode(model.eval(), test_loader)[2]}

    return measure


IMPLEMENTATIONS = {"ours": ours, "baseline": baseline, "limit": runner.limit}


def compare(args: Namespace) -> None:
    found = runner.run_benchmark(__file__, IMPLEMENTATIONS, args)
    rows, steps = runner.table(found), args.steps or STEPS_PER_EPOCH
    step_seconds = rows["ours"]["seconds"]["median"] / steps
    result = {
        "task": f"AAE with z_dim {COURSE['z_dim']}, {steps} steps of {BATCH_SIZE} images",
        "rows": rows,
        "step": limits.shares(found["ours"][0]["counted"], step_seconds, rows["limit"]),
        "over_baseline": runner.ratios(found["ours"], found["baseline"]),
        "losses_baseline": runner.agree(found["ours"], found["baseline"]),
        "help_seconds": runner.help_seconds("part2"),
        "training": runner.one_epoch("part2", args.data_dir),
    }
    runner.write(args.output, "part2", result, ["pytorch-lightning"])


if __name__ == "__main__":
    raise SystemExit(runner.main(IMPLEMENTATIONS, compare, ARGS))

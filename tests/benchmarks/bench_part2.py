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

import runner

PART = runner.REPOSITORY / "part2"
COURSE = {"z_dim": 8, "lambda_": 0.995, "ae_lr": 1e-3, "d_lr": 5e-3}
BATCH_SIZE = 64
STEPS_PER_EPOCH = 938


def ours(args) -> runner.Measure:
    """What `part2/train.py` sets up."""
    import training_run

    training_run.configure_cpu()
    import torch

    import limits
    from inputs import resolve_settings
    from train import train_aae

    log_dir = tempfile.TemporaryDirectory()
    flags = Namespace(data_dir=args.data_dir, log_dir=log_dir.name, epochs=1, progress_bar=False, **COURSE)
    settings = resolve_settings(flags, read_checkpoint=None)
    fabric = training_run.start_fabric(settings)

    def measure(seed: int, steps: int) -> dict:
        settings.seed = seed
        train_loader, test_loader = training_run.make_loaders(settings, fabric)
        with training_run.RunRecord(settings, fabric) as record:
            return measured(seed, steps, train_loader, test_loader, record)

    def measured(seed: int, steps: int, train_loader, test_loader, record) -> dict:
        state = training_run.TrainingState(settings, fabric, record.writer)
        limits.synchronize()
        start = time.perf_counter()
        with training_run.epoch_batches(train_loader, settings, fabric, epoch=1) as batches:
            train_aae(1, state.wrapped_model, itertools.islice(batches, steps or None), state.logger_ae,
                      state.logger_disc, state.optimizer_ae, state.optimizer_disc, settings.lambda_,
                      backward=fabric.backward)  # fmt: skip
        limits.synchronize()
        seconds = time.perf_counter() - start
        loss = training_run.score_test_images(state.model, test_loader, fabric)["recon_loss"]
        if not seed:
            x = torch.rand(BATCH_SIZE, 1, 28, 28, device=fabric.device)
            measure.counted = limits.count(lambda: step_of(state.model, x))
        return {"seconds": seconds, "loss": loss, "counted": measure.counted}

    measure.log_dir = log_dir  # removed at the end of the process

    def step_of(model, x) -> None:
        recon_x, z = model(x)
        model.get_loss_autoencoder(x, recon_x, z, settings.lambda_)[0].backward()
        model.get_loss_discriminator(z)[0].backward()

    return measure


def baseline(args) -> runner.Measure:
    """The plain pipeline."""
    import torch
    from torch.utils.tensorboard import SummaryWriter

    import baseline_aae
    import limits
    from evaluation import encode
    from mnist import mnist_test

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


def main() -> int:
    args = runner.parse(runner.build_parser(__doc__.split("\n\n")[0], steps=150))
    sys.path.insert(0, str(PART))
    implementations = {"ours": ours, "baseline": baseline, "limit": runner.limit}
    if args.worker:
        runner.serve(implementations, args)
        return 0
    found = runner.run_benchmark(__file__, implementations, args)
    import limits

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
    return 0


if __name__ == "__main__":
    raise SystemExit(runner.run_command(main))

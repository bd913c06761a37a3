"""Part 3's training of gpt-mini on characters against the plain pipeline:
`python tests/benchmarks/bench_part3_training.py`.

A measurement trains a new model on Shakespeare for 5 steps of 128 windows of 128 characters; both pipelines start from
the same weights. Losses after 5 steps say little, so a second run of 80 smaller steps compares them on validation text.
`--others` adds trainings with flags that change the arithmetic and are therefore not the default.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time

import runner

PART = runner.REPOSITORY / "part3"
# Of the second run, which compares losses.
STEPS, BATCH_SIZE = 80, 8


def clock():
    """Callback that measures the time from the start of the first step to the end of the last."""
    import pytorch_lightning as pl

    import limits

    class Clock(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            limits.synchronize()
            self.start = time.perf_counter()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == trainer.max_steps or trainer.is_last_batch:
                limits.synchronize()
                self.seconds = time.perf_counter() - self.start

    return Clock()


def prepare(args, seed: int, steps: int, **flags):
    """Flags, data and a new model, as `part3/train.py` makes them."""
    import pytorch_lightning as pl

    import training_run
    from inputs import resolve_settings
    from vocabulary import Characters

    flags |= {
        "data_dir": args.data_dir,
        "log_dir": tempfile.gettempdir(),
        "train_batch_size": args.train_batch_size,
        "max_steps": steps,
        "seed": seed,
    }
    flags = argparse.Namespace(**flags, val_every_n_steps=steps, generate_every_n_steps=10**9)
    flags = resolve_settings(flags, read_checkpoint=None)
    pl.seed_everything(seed, workers=True, verbose=False)
    text = training_run.read_text_of_run(flags)
    vocabulary = Characters.of(text)
    train_set, val_set = training_run.make_datasets(flags, vocabulary, text)
    return flags, text, train_set, val_set, training_run.make_model(flags, vocabulary)


def loss_of(model, val_set, num_batches: int = 2) -> float:
    """Mean loss in nats on the first batches of the validation text."""
    import torch
    import torch.nn.functional as F

    import limits
    from dataset import val_loader

    model.eval().to(limits.device())
    with torch.no_grad():
        losses = []
        for x, y in itertools.islice(val_loader(val_set, 128), num_batches):
            logits = model(x.to(limits.device())).float().flatten(end_dim=1)
            losses.append(F.cross_entropy(logits, y.to(limits.device()).flatten()).item())
    return sum(losses) / len(losses)


def result_of(watch, steps: int, flags, loss: float) -> dict:
    tokens = steps * flags.train_batch_size * flags.block_size
    return {"seconds": watch.seconds, "tokens_per_second": tokens / watch.seconds, "loss": loss}


def ours(args, **flags) -> runner.Measure:
    """What `part3/train.py` sets up."""
    import training_run

    training_run.configure_cpu()
    training_run.silence_lightning()
    import torch
    import torch.nn.functional as F

    import limits
    from gpu import compile_options, configure_gpu
    from train import GPTLightningModule

    configure_gpu(deterministic=False)

    def measure(seed: int, steps: int) -> dict:
        settings, text, train_set, val_set, model = prepare(args, seed, steps, **flags)
        module, watch = GPTLightningModule(settings, model, train_set, val_set), clock()
        if settings.compile:
            module.model.compile(**compile_options(training_run.gpu_backend(settings.accelerator)))
        with tempfile.TemporaryDirectory() as folder:
            settings.log_dir = folder
            trainer, _ = training_run.make_trainer(settings, len(train_set), text)
            trainer.limit_val_batches = 1
            trainer.callbacks.append(watch)
            trainer.fit(module)
        result = result_of(watch, steps, settings, loss_of(model, val_set))
        if not seed:
            x, y = (t.to(limits.device()) for t in train_set.__getitems__(list(range(settings.train_batch_size))))
            model.train()
            measure.counted = limits.count(lambda: F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward())
            model.zero_grad()
            torch.manual_seed(seed)
        return {**result, "counted": measure.counted}

    return measure


def baseline(args) -> runner.Measure:
    """The plain pipeline."""
    import baseline_gpt

    def measure(seed: int, steps: int) -> dict:
        flags, text, train_set, val_set, model = prepare(args, seed, steps)
        plain = baseline_gpt.PlainGPT(model.config)
        plain.load_state_dict(model.state_dict())
        characters = baseline_gpt.Characters(text[: len(train_set.data)], train_set.string_to_index, flags.block_size)
        module, watch = baseline_gpt.PlainModule(plain, flags, characters, min(8, os.cpu_count())), clock()
        with tempfile.TemporaryDirectory() as folder:
            baseline_gpt.trainer(folder, steps, flags.clip_grad_norm, [watch]).fit(module)
        return result_of(watch, steps, flags, loss_of(plain, val_set))

    return measure


def main() -> int:
    others = "further implementations of ours: in bfloat16, or compiled"
    parser = runner.build_parser(__doc__.split("\n\n")[0], steps=5, others=others)
    parser.add_argument("--train_batch_size", type=int, default=128, help="windows of a step")
    args = runner.parse(parser, fewest_steps=1)
    sys.path.insert(0, str(PART))
    implementations = {
        "ours": ours,
        "baseline": baseline,
        "bf16": lambda args: ours(args, precision="bf16-mixed"),
        "compile": lambda args: ours(args, compile=True),
        "limit": runner.limit,
    }
    if args.worker:
        runner.serve(implementations, args)
        return 0
    others, batch_size = ["baseline", *args.others], str(args.train_batch_size)
    found = runner.run_benchmark(__file__, ["ours", *others, "limit"], args, ["--train_batch_size", batch_size])
    shorter = argparse.Namespace(**{**vars(args), "steps": STEPS})
    losses = runner.run_benchmark(__file__, ["ours", *others], shorter, ["--train_batch_size", str(BATCH_SIZE)])
    import limits

    rows = runner.table(found)
    result = {
        "task": f"gpt-mini, {args.steps} steps of {batch_size} windows of 128 characters",
        "task_of_losses": f"{STEPS} steps of {BATCH_SIZE} windows",
        "rows": rows,
        "step": limits.shares(
            found["ours"][0]["counted"], rows["ours"]["seconds"]["median"] / args.steps, rows["limit"]
        ),
        "help_seconds": runner.help_seconds("part3"),
    }
    for other in others:
        result[f"tokens_over_{other}"] = runner.ratios(found["ours"], found[other], "tokens_per_second")
        result[f"losses_{other}"] = runner.agree(losses["ours"], losses[other])
    runner.write(args.output, "part3_training", result, ["pytorch-lightning"])
    return 0


if __name__ == "__main__":
    raise SystemExit(runner.run_command(main))

"""Part 3's training of gpt-mini on characters against the plain pipeline:
`python tests/benchmarks/bench_part3_training.py`.

A measurement trains a new model on Shakespeare for 5 steps of 128 windows of 128 characters; both pipelines start from
the same weights. Losses after 5 steps say little, so a second run of 80 smaller steps compares them on validation text.
`--others` adds trainings with flags that change the arithmetic and are therefore not the default.
"""
# ruff: noqa: E402

import itertools
import os
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "part3"))
import runner
from run import Parser, whole_number


def build_parser() -> Parser:
    others = "further implementations of ours: in bfloat16, or compiled"
    parser = runner.build_parser("bench_part3_training.py", __doc__, steps=5, fewest=1, others=others)
    parser.add_argument("--train_batch_size", type=whole_number(1, 10**6), default=128, help="windows of a step")
    return parser


if __name__ == "__main__":
    ARGS = build_parser().parse_args()  # first, since importing PyTorch takes seconds

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import TensorBoardLogger

import limits
from args import complete_args
from callbacks import RunRecord, SeedEveryRound
from dataset import load_text, make_datasets, val_loader
from train import GPTLightningModule, make_model, make_vocabulary

# Of the second run, which compares losses.
STEPS, BATCH_SIZE = 80, 8


class Clock(pl.Callback):
    """Measures the time from the start of the first step to the end of the last."""

    def on_train_epoch_start(self, trainer, pl_module):
        limits.synchronize()
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == trainer.max_steps or trainer.is_last_batch:
            limits.synchronize()
            self.seconds = time.perf_counter() - self.start


def prepare(args: Namespace, seed: int, steps: int, **flags):
    """Flags, data and a new model, as `part3/train.py` makes them."""
    given = Namespace(data_dir=args.data_dir, train_batch_size=args.train_batch_size, max_steps=steps, seed=seed,
                      val_every_n_steps=steps, **flags)  # fmt: skip
    flags, _, _ = complete_args(given, read=None)
    pl.seed_everything(seed, workers=True, verbose=False)
    text = load_text(flags.txt_file, Path(flags.data_dir))
    vocabulary = make_vocabulary(flags, text)
    return flags, text, *make_datasets(flags, vocabulary, text), make_model(flags, vocabulary)


def loss_of(model, val_set, num_batches: int = 2) -> float:
    """Mean loss in nats on the first batches of the validation text."""
    model.eval().to(limits.device())
    with torch.no_grad():
        losses = []
        for x, y in itertools.islice(val_loader(val_set, 128), num_batches):
            logits = model(x.to(limits.device())).float().flatten(end_dim=1)
            losses.append(F.cross_entropy(logits, y.to(limits.device()).flatten()).item())
    return sum(losses) / len(losses)


def result_of(clock: Clock, steps: int, flags, loss: float) -> dict:
    tokens = steps * flags.train_batch_size * flags.block_size
    return {"seconds": clock.seconds, "tokens_per_second": tokens / clock.seconds, "loss": loss}


def ours(args: Namespace, **given) -> runner.Measure:
    """The training of `part3/train.py`, without samples and checkpoints, which are not timed."""
    counted = None

    def measure(seed: int, steps: int) -> dict:
        nonlocal counted
        flags, _, train_set, val_set, model = prepare(args, seed, steps, **given)
        if counted is None:
            model.to(limits.device())
            x, y = (t.to(limits.device()) for t in train_set.__getitems__(list(range(flags.train_batch_size))))
            counted = limits.count(lambda: F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward())
            model.zero_grad()
        train_set.to(limits.device())
        val_set.to(limits.device())
        module, clock = GPTLightningModule(flags, model, train_set, val_set), Clock()
        if flags.compile:
            module.model.compile()
        with tempfile.TemporaryDirectory() as folder:
            trainer = pl.Trainer(
                devices=1,
                precision=flags.precision,
                benchmark=True,
                max_epochs=1,
                use_distributed_sampler=False,
                gradient_clip_val=flags.clip_grad_norm,
                logger=TensorBoardLogger(folder, default_hp_metric=False),
                callbacks=[SeedEveryRound(seed), RunRecord(flags, text_sha256=""), clock],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                limit_val_batches=1,
            )
            trainer.fit(module)
        return {**result_of(clock, steps, flags, loss_of(model, val_set)), "counted": counted}

    return measure


def baseline(args: Namespace) -> runner.Measure:
    """The plain pipeline."""
    import baseline_gpt

    def measure(seed: int, steps: int) -> dict:
        flags, text, train_set, val_set, model = prepare(args, seed, steps)
        plain = baseline_gpt.PlainGPT(model.config)
        plain.load_state_dict(model.state_dict())
        characters = baseline_gpt.Characters(text[: len(train_set.data)], train_set.string_to_index, flags.block_size)
        module, clock = baseline_gpt.PlainModule(plain, flags, characters, min(8, os.cpu_count())), Clock()
        with tempfile.TemporaryDirectory() as folder:
            baseline_gpt.trainer(folder, steps, flags.clip_grad_norm, [clock]).fit(module)
        return result_of(clock, steps, flags, loss_of(plain, val_set))

    return measure


IMPLEMENTATIONS = {
    "ours": ours,
    "baseline": baseline,
    "bf16": lambda args: ours(args, precision="bf16-mixed"),
    "compile": lambda args: ours(args, compile=True),
    "limit": runner.limit,
}


def compare(args: Namespace) -> None:
    others, batch_size = ["baseline", *args.others], str(args.train_batch_size)
    found = runner.run_benchmark(__file__, ["ours", *others, "limit"], args, ["--train_batch_size", batch_size])
    shorter = Namespace(**{**vars(args), "steps": STEPS})
    losses = runner.run_benchmark(__file__, ["ours", *others], shorter, ["--train_batch_size", str(BATCH_SIZE)])
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


if __name__ == "__main__":
    raise SystemExit(runner.main(IMPLEMENTATIONS, compare, ARGS))

"""The GPT as a LightningModule, and its training: `python train.py --help` lists the flags, README.md the files that a
run leaves."""

from args import LAST, build_parser, complete_args, parse_args

if __name__ == "__main__":
    ARGS = parse_args()  # first, since importing PyTorch takes seconds

import argparse
import contextlib
import hashlib
import math
import os
import statistics
import sys
from pathlib import Path

import matplotlib.style
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks import METRICS, AtomicCheckpointIO, BestAndLast, GenerateCallback, RunRecord, SeedEveryRound
from dataset import TextDataset, load_text, make_datasets, planned_steps, round_loader, val_loader
from generate import generate
from gpt import GPT, load_gpt
from pictures import plot_curves, write_figure
from pretrained import check_fits, load_vocabulary
from run import InputError, cluster_environment, device_name, open_run, run_command, write_summary
from vocabulary import Characters, Vocabulary, from_state

GOALS = (2.0, 1.8, 1.6, 1.5)  # the summary has the step and the time at which the validation loss falls below each


class GPTLightningModule(pl.LightningModule):
    """Trains a GPT to predict each next token.

    Args:
        config: the flags of `train.py`; a missing flag has its default.
        model: a `GPT`.
        train_dataset: the text to train on.
        val_dataset: the text to validate on; None: no validation.
    """

    recorded = False  # whether `RunRecord` writes the losses of this training into TensorBoard

    def __init__(self, config: argparse.Namespace, model: GPT, train_dataset: TextDataset,
                 val_dataset: TextDataset | None = None):  # fmt: skip
        super().__init__()
        self.config = argparse.Namespace(**{**build_parser().default_flags(), **vars(config)})
        self.model, self.train_dataset, self.val_dataset = model, train_dataset, val_dataset

    def forward(self, idx: Tensor) -> Tensor:
        """Logits [B, T, vocab_size] of tokens [B, T]."""
        return self.model(idx)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        loss, accuracy = self.loss_and_accuracy(batch)
        self._log_means(batch, train_loss=loss, train_acc=accuracy)
        return {"loss": loss, "accuracy": accuracy}

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        loss, accuracy = self.loss_and_accuracy(batch)
        bits_per_character = loss / math.log(2) * self.val_dataset.tokens_per_character
        self._log_means(batch, val_loss=loss, val_acc=accuracy, val_bpc=bits_per_character)

    def loss_and_accuracy(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Two scalars: the mean cross entropy in nats of a batch, two times long [B, T]; and the share of tokens that
        had the highest logit."""
        x, y = batch
        logits = self(x)  # (B, T, V)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(end_dim=1)  # (B*T, V)
        hits = logits.detach().argmax(dim=-1) == y.flatten()  # (B*T)
        return F.cross_entropy(logits, y.flatten()), hits.float().mean()

    def _log_means(self, batch: tuple[Tensor, Tensor], **losses: Tensor) -> None:
        """Log the means over all tokens of a round."""
        self.log_dict(losses, on_step=False, on_epoch=True, batch_size=batch[1].numel(), sync_dist=True,
                      logger=not self.recorded)  # fmt: skip

    def num_steps(self) -> int:
        return planned_steps(self.config, len(self.train_dataset), self.trainer.world_size)

    def tokens_per_step(self) -> int:
        """Tokens in a step, of all processes together."""
        return self.config.train_batch_size * self.config.block_size * self.trainer.world_size

    def configure_optimizers(self) -> dict:
        # The loss scaler of 16-mixed must unscale the gradients before they are clipped; fused AdamW hides them.
        optimizer = self.model.configure_optimizers(self.config, fused=self.config.precision != "16-mixed")
        num_steps = self.num_steps()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, num_steps, self.config))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Lightning's own method refuses fused optimizers in mixed precision, even without a loss scaler."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def train_dataloader(self):
        return round_loader(self.train_dataset, self.config, self.trainer)

    def val_dataloader(self):
        return val_loader(self.val_dataset, self.config.train_batch_size) if self.val_dataset else []

    def generate(self, prompt: str = "", num_samples: int = 5, n_steps: int = 30, do_sample: bool = True,
                 top_k: int | None = None, verbose: bool = True) -> list[str]:  # fmt: skip
        """Texts that continue a prompt; printed if `verbose`. Neither the model's mode nor the random state of the
        training changes."""
        return generate(self.model, self.config.model_type, prompt, num_samples, n_steps, do_sample, top_k,
                        device=self.device, verbose=verbose, vocabulary=self.train_dataset.vocabulary,
                        generator=torch.Generator(self.device).manual_seed(self.config.seed))  # fmt: skip


def rate_at(step: int, num_steps: int, args: argparse.Namespace) -> float:
    """Learning rate of step 0 .. num_steps - 1, as a multiple of `learning_rate`. It rises linearly over
    `warmup_steps`; then it is constant, or falls along half a cosine to `min_learning_rate` (Loshchilov and Hutter,
    2017)."""
    if step < args.warmup_steps:
        return (step + 1) / args.warmup_steps
    if args.lr_schedule == "constant":
        return 1.0
    least = args.min_learning_rate / args.learning_rate
    progress = min(1.0, (step - args.warmup_steps) / max(1, num_steps - 1 - args.warmup_steps))
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * progress))


def make_vocabulary(args: argparse.Namespace, text: str, saved: dict | None = None) -> Vocabulary:
    """The vocabulary of a resumed run, or of the pretrained model, or the characters of the text."""
    if saved:
        return from_state(saved["vocabulary"])
    return load_vocabulary(_pretrained(args)) if args.use_pretrained else Characters.of(text)


def make_model(args: argparse.Namespace, vocabulary: Vocabulary, saved: dict | None = None) -> GPT:
    """A new model, a pretrained one, or one for the weights of a checkpoint, which Lightning loads. Raises InputError
    where weights cannot be had, or do not fit the flags."""
    if saved:
        return GPT(argparse.Namespace(**saved["gpt_config"]))
    if not args.use_pretrained:
        config = GPT.get_default_config()
        config.model_type, config.block_size = args.model_type, args.block_size
        config.vocab_size = vocabulary.vocab_size
        return GPT(config)
    model = GPT.from_pretrained(_pretrained(args))
    check_fits(_pretrained(args), model, vocabulary)
    if args.block_size > model.block_size:
        raise InputError(f"--block_size {args.block_size} is more than the {model.block_size} positions of the "
                         "pretrained model")  # fmt: skip
    for parameter in model.parameters():  # row by row in memory, as in a resumed run, for bit-identical results
        parameter.data = parameter.data.contiguous()
    return model.train()


def _pretrained(args: argparse.Namespace) -> str | Path:
    return args.model_type if args.use_pretrained == "hub" else Path(args.use_pretrained)


def train(args: argparse.Namespace) -> dict[str, float]:
    """Train a GPT, validate it every `val_every_n_steps` steps, and write the results.

    Args:
        args: flags of `train.py`; a missing flag has its default.

    Returns:
        The last `train_loss`, `val_loss` in nats per token, `train_acc`, `val_acc`, `val_bpc`, `learning_rate`.

    Raises:
        InputError: a flag, the text, the weights, the run to resume or the log directory cannot be used, or the loss is
            not finite.
        KeyboardInterrupt, SystemExit: a signal has ended the training; a message has told how to resume it.
    """
    args, run_dir, saved = complete_args(args, read=lambda path: load_gpt(path)[2])
    pl.seed_everything(args.seed, workers=True, verbose=False)
    text = load_text(args.txt_file, Path(args.data_dir))
    checksum = hashlib.sha256(text.encode()).hexdigest()
    if saved and checksum != saved["text_sha256"]:
        raise InputError(f"{args.txt_file} is not the text that the run to resume was started with: give the path of "
                         "that text to --txt_file, or start a new run without --resume")  # fmt: skip
    vocabulary = make_vocabulary(args, text, saved)
    train_set, val_set = make_datasets(args, vocabulary, text)
    num_steps = planned_steps(args, len(train_set), args.devices * args.num_nodes)
    done, rounds_done = (saved["global_step"], saved["epoch"] + 1) if saved else (0, 0)
    if done > num_steps or (done == num_steps and (run_dir / "summary.json").exists()):
        raise InputError(f"the run already has {done} steps: raise --max_steps or --num_epochs to continue it")
    if args.warmup_steps >= num_steps and not saved:
        raise InputError(f"--warmup_steps {args.warmup_steps} must be below the {num_steps} steps of the training")
    record, show_bar = RunRecord(args, checksum), args.progress_bar or sys.stdout.isatty()
    try:
        trainer = pl.Trainer(
            accelerator=args.accelerator,
            devices=args.devices,
            num_nodes=args.num_nodes,
            strategy=args.strategy,
            precision=args.precision,
            deterministic=args.deterministic,
            benchmark=not args.deterministic,
            max_epochs=rounds_done + math.ceil((num_steps - done) / args.val_every_n_steps),
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            gradient_clip_val=args.clip_grad_norm or None,
            logger=False,  # for the moment: the first process alone has a run directory
            plugins=[AtomicCheckpointIO(), *cluster_environment(args)],
            callbacks=[SeedEveryRound(args.seed), record,
                       GenerateCallback(args.generate_batch_size, args.generate_every_n_steps), BestAndLast(),
                       *([TQDMProgressBar()] if show_bar else [])],
            enable_progress_bar=show_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=os.devnull,
        )  # fmt: skip
    except (MisconfigurationException, ValueError) as error:
        raise InputError(f"--accelerator, --devices, --num_nodes, --strategy or --precision: {error}") from error
    module = GPTLightningModule(args, make_model(args, vocabulary, saved), train_set, val_set)
    if trainer.strategy.root_device.type == "cuda" and not args.num_workers:
        for dataset in (train_set, val_set):
            dataset.to(trainer.strategy.root_device)
    if args.compile:
        module.model.compile()
    first = trainer.is_global_zero
    with open_run(Path(args.log_dir, "lightning_logs"), run_dir) if first else contextlib.nullcontext() as directory:
        if first:
            trainer.logger = TensorBoardLogger(directory.parents[1], directory.parent.name, directory.name,
                                               default_hp_metric=False, purge_step=done + 1)  # fmt: skip
        trainer.fit(module, ckpt_path=run_dir and run_dir / LAST, weights_only=True)
        if first:
            write_results(args, directory, trainer, record, module)
    return {name: record.rows[-1][name] for name in METRICS}


@matplotlib.style.context("default")  # not the user's
def write_results(args: argparse.Namespace, run_dir: Path, trainer: pl.Trainer, record: RunRecord, module) -> None:
    """Write the curves into the run directory, and `summary.json` last."""
    rows, config = record.rows, module.model.config
    best = min(rows, key=lambda row: row["val_loss"])
    figure = plot_curves(rows, config.vocab_size)
    write_figure(run_dir / "curves.png", figure)
    trainer.logger.experiment.add_figure("curves", figure, global_step=rows[-1]["step"] + 1)
    trainer.logger.experiment.flush()
    reached = {}
    for goal in GOALS:
        row = next((row for row in rows if row["val_loss"] < goal), None)
        name = f"{goal:.2f}".replace(".", "_")
        reached[f"steps_to_val_loss_below_{name}"] = row and row["step"]
        reached[f"seconds_to_val_loss_below_{name}"] = row and round(row["seconds"], 1)
    write_summary(run_dir, args, {
        **{f"best_{name}": best[name] for name in ("val_loss", "val_bpc", "val_acc")},
        "best_step": best["step"],
        **{name: rows[-1][name] for name in ("train_loss", "train_acc", "val_loss", "val_bpc", "val_acc")},
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        **{name: getattr(config, name) for name in ("vocab_size", "n_layer", "n_head", "n_embd")},
        **reached,
        "steps": rows[-1]["step"],
        "tokens": rows[-1]["step"] * module.tokens_per_step(),
        "train_seconds": round(rows[-1]["seconds"], 1),
        "median_tokens_per_second": round(statistics.median(row["tokens_per_second"] for row in rows)),
        "device": device_name(trainer.strategy.root_device),
        "num_devices": trainer.world_size,
    })  # fmt: skip
    print(f"best validation: {best['val_loss']:.4f} nats, {best['val_bpc']:.3f} bits per character at step "
          f"{best['step']}; sample texts and results are in {run_dir}", flush=True)  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(run_command(train, ARGS))

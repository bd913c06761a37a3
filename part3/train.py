"""The GPT as a LightningModule, and its training: `python train.py --help` lists the flags, README.md the files that a
run leaves."""

import sys
from pathlib import Path

if __name__ == "__main__":  # flags first, since importing PyTorch takes seconds
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # for `python -m part3.train` and `python -P`
    from cli import start
    from inputs import parse_args

    ARGS = start(parse_args)

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from cli import run_command
from dataset import TextDataset, round_loader, val_loader
from generate import generate
from gpt import GPT
from gpu import compile_options, configure_gpu, keep_on_gpu
from inputs import parse_args, resolve_settings, with_defaults
from metrics import TokenMeansModule
from processes import check_compiler, explained_failures
from rewind import run_directory
from run_folder import read_checkpoint
from training_run import (
    configure_cpu,
    gpu_backend,
    join_processes,
    log_to_stdout,
    make_datasets,
    make_model,
    make_trainer,
    make_vocabulary,
    read_text_of_run,
    resumable,
    seed_everything,
    silence_lightning,
    with_schedule,
    write_results,
)

RESULTS = ("train_loss", "train_acc", "learning_rate", "val_loss", "val_acc", "val_bpc")


class GPTLightningModule(TokenMeansModule):
    """Trains a GPT to predict each next token.

    One of Lightning's epochs is a round of `val_every_n_steps` steps followed by a validation. A pass over the text may
    begin and end within a round.

    Args:
        config: the flags of `train.py`; a missing flag has its default.
        model: a `GPT`.
        train_dataset: the text to train on.
        val_dataset: the text to validate on; None: no validation.
    """

    def __init__(self, config: argparse.Namespace, model: GPT, train_dataset: TextDataset,
                 val_dataset: TextDataset | None = None):  # fmt: skip
        super().__init__()
        self.config, self.model = with_defaults(config), model
        self.train_dataset, self.val_dataset = train_dataset, val_dataset
        if val_dataset is not None:
            self.tokens_per_character = val_dataset.tokens_per_character

    def forward(self, idx: Tensor) -> Tensor:
        """Logits [B, T, vocab_size] of tokens [B, T]."""
        return self.model(idx)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._step(batch, "val")

    def _step(self, batch: tuple[Tensor, Tensor], mode: str) -> Tensor:
        """Mean cross entropy in nats of a batch, two times long [B, T]. It is added to the means of the mode."""
        loss, hits = self.loss_and_hits(batch)
        self.add_tokens(mode, loss, hits, count=batch[1].numel())
        return loss

    def loss_and_hits(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean cross entropy in nats, and the number of tokens that had the highest logit."""
        x, y = batch
        logits = self(x)  # (B, T, V)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(end_dim=1)  # (B*T, V)
        return F.cross_entropy(logits, y.flatten()), (logits.detach().argmax(dim=-1) == y.flatten()).sum()

    def configure_optimizers(self):
        # The loss scaler of 16-mixed must unscale the gradients before they are clipped; fused AdamW hides them.
        optimizer = self.model.configure_optimizers(self.config, fused=self.config.precision != "16-mixed")
        return with_schedule(optimizer, self)

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Lightning's own method refuses fused optimizers in mixed precision, even without a loss scaler."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def train_dataloader(self):
        return round_loader(self.train_dataset, self.config, self.trainer)

    def val_dataloader(self):
        if self.val_dataset is None:
            return []
        keep_on_gpu(self.val_dataset, self.trainer.strategy.root_device, num_workers=0)
        return val_loader(self.val_dataset, self.config.train_batch_size)

    def generate(self, prompt: str = "", num_samples: int = 5, n_steps: int = 30, do_sample: bool = True,
                 top_k: int | None = None, verbose: bool = True) -> list[str]:  # fmt: skip
        """Texts that continue a prompt; printed if `verbose`. Neither the model's mode nor the random state of the
        training changes."""
        return generate(self.model, self.config.model_type, prompt, num_samples, n_steps, do_sample, top_k,
                        device=self.device, verbose=verbose, vocabulary=self.train_dataset.vocabulary,
                        generator=torch.Generator(self.device).manual_seed(self.config.seed))  # fmt: skip


def train(args: argparse.Namespace) -> dict[str, float]:
    """Train a GPT, validate it every `val_every_n_steps` steps, and write the results.

    Args:
        args: flags of `train.py`; a missing flag has its default.

    Returns:
        The last losses in nats per token, accuracies and bits per character: `train_loss`, `train_acc`, `val_loss`,
        `val_acc`, `val_bpc`; and `learning_rate`.

    Raises:
        InputError: a flag, the text, the weights, the run to resume or the log directory cannot be used, or the loss is
            not finite.
        KeyboardInterrupt, SystemExit: a signal has ended the training; a message has told how to resume it.
    """
    log_to_stdout()
    configure_cpu()
    silence_lightning()
    settings = resolve_settings(args, read_checkpoint)
    check_compiler(settings)
    with explained_failures(lower="--train_batch_size, --block_size or --model_type"):
        return _train(settings)


def _train(settings: argparse.Namespace) -> dict[str, float]:
    processes = join_processes(settings)
    configure_gpu(settings.deterministic)
    seed_everything(settings.seed)
    text = read_text_of_run(settings)
    vocabulary = make_vocabulary(settings, text)
    train_set, val_set = make_datasets(settings, vocabulary, text)
    model = make_model(settings, vocabulary)
    trainer, record = make_trainer(settings, len(train_set), text, processes)
    module = GPTLightningModule(settings, model, train_set, val_set)
    if settings.precision == "64-true":
        module.double()  # before the checkpoint is loaded, which would be rounded to float32 otherwise
    if settings.compile:
        module.model.compile(**compile_options(gpu_backend(settings.accelerator)))
    with run_directory(trainer, record, settings), resumable(trainer, settings):
        trainer.fit(module, ckpt_path=settings.checkpoint, weights_only=True)
        if trainer.is_global_zero:
            write_results(settings, trainer, record, module)
    # The module has no results if the resumed run had its last step already and only lacked its pictures.
    return {name: record.rows[-1][name] for name in RESULTS}


def main(argv: list[str] | argparse.Namespace | None = None) -> int:
    """Run the command line.

    Args:
        argv: its words, or the parsed flags; None: those of this process.

    Returns:
        The exit code: 0; 2 after one sentence about input that cannot be used; 130, 143 or 138 after SIGINT, SIGTERM or
        SIGUSR1.
    """
    args = argv if isinstance(argv, argparse.Namespace) else parse_args(argv)
    return run_command(train, args, "train.py")


if __name__ == "__main__":
    raise SystemExit(main(ARGS))

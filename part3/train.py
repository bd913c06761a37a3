"""Train a GPT on a text: `python train.py --help` lists the flags, `README.md` what a run leaves behind.

PyTorch and all that rests on it are imported inside the functions: they take seconds, and the flags are parsed before.
"""

from __future__ import annotations  # the names in signatures stand for modules that are not imported yet

import argparse
import hashlib
import logging
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from inputs import DATA_DIR, LOG_DIR, InputError, beside, check, completed, continued, make_writable, parse

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from callbacks import RunRecord
    from dataset import TextDataset
    from gpt import GPT
    from lightning_module import GPTLightningModule

RESULTS = ("train_loss", "train_acc", "learning_rate", "val_loss", "val_acc", "val_bpc")
log = logging.getLogger(__name__)


def __getattr__(name: str):
    if name == "GPTLightningModule":
        from lightning_module import GPTLightningModule

        return GPTLightningModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def train(args: argparse.Namespace) -> dict:
    """Train, and validate every `val_every_n_steps` steps.

    Args:
        args: the flags of `train.py`; a flag that is missing has its default.

    Returns:
        The last losses in nats per token, accuracies and bits per character: `train_loss`, `train_acc`, `val_loss`,
        `val_acc`, `val_bpc`; and `learning_rate`.

    Raises:
        InputError: a flag, the text, the weights, the run to resume or the log folder cannot be used; or the loss is
            not finite.
        KeyboardInterrupt or SystemExit: it was interrupted, after a message that says how to go on.
    """
    args = completed(args)
    if not args.resume:
        check(args)  # before anything that takes time
    import run_folder

    run_folder.prepare_processor()
    run_folder.quieten_lightning()
    if args.txt_file not in ("tiny_shakespeare", "pydoc"):
        args.txt_file = os.path.abspath(os.path.expanduser(args.txt_file))
    log_dir = beside(args.log_dir, LOG_DIR)
    checkpoint = saved = None
    if args.resume:
        checkpoint = run_folder.find_checkpoint(args.resume, log_dir, "last")
        model, vocabulary, saved = run_folder.load_gpt(checkpoint)
        run = run_folder.run_of(checkpoint, "--resume")
        model.train()
        args = continued(args, saved["flags"])
    check(args)
    make_writable(*((run, "run to --resume") if saved else (log_dir, "--log_dir")))
    args.data_dir = str(beside(args.data_dir, DATA_DIR))

    import pytorch_lightning as pl
    import torch

    from callbacks import RunRecord
    from dataset import load_text
    from lightning_module import GPTLightningModule, planned_steps

    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    pl.seed_everything(args.seed, workers=True, verbose=False)
    if saved is None:
        model, vocabulary = new_model(args)
    text = load_text(args.txt_file, Path(args.data_dir))
    digest = hashlib.sha256(text.encode()).hexdigest()
    if saved is not None and digest != saved["text_sha256"]:
        raise InputError(f"{args.txt_file} is another text than the run to resume was started with: give the path of "
                         "that one to --txt_file, or start a new run without --resume")  # fmt: skip
    train_set, val_set = load_data(args, vocabulary, text)
    if saved is None and model is None:
        model = from_scratch(args, train_set.vocab_size)
    num_devices = _num_devices(args)
    num_steps = planned_steps(args, len(train_set), num_devices)
    if saved is None and args.warmup_steps >= num_steps:
        raise InputError(f"--warmup_steps {args.warmup_steps} must be below the {num_steps} steps of the training")
    if saved is not None:
        complete = (run / "summary.json").exists()
        if saved["global_step"] > num_steps or (saved["global_step"] == num_steps and complete):
            raise InputError(f"the run already has {saved['global_step']} steps: raise --max_steps or --num_epochs to "
                             "continue it")  # fmt: skip
    tokens_per_step = args.train_batch_size * args.block_size * num_devices
    record = RunRecord(args, num_steps, tokens_per_step, digest)
    done, rounds = (saved["global_step"], saved["epoch"] + 1) if saved else (0, 0)
    rounds += math.ceil((num_steps - done) / args.val_every_n_steps)
    trainer = make_trainer(args, log_dir, checkpoint, record, rounds, first_step=done)
    if trainer.world_size != num_devices:
        raise InputError(f"--devices and --num_nodes ask for {num_devices} processes, but {trainer.world_size} run: "
                         "under SLURM, give --ntasks-per-node the number of --devices")  # fmt: skip
    module = GPTLightningModule(args, model, train_set, val_set)
    if args.precision == "64-true":
        module.double()  # Lightning does so later than it loads a checkpoint, which would be rounded
    if args.compile:
        module.model.compile()
    trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        try:
            finish(args, trainer, record, module)
        except KeyboardInterrupt:
            record.say_how_to_go_on(trainer)
            raise
    # Not of the module, which took no step where a run was interrupted after its last one and is only finished now.
    return {name: record.rows[-1][name] for name in RESULTS}


def new_model(args: argparse.Namespace):
    """Pretrained model and its vocabulary; for training from scratch two times None, since the vocabulary is the
    text's."""
    if args.use_pretrained is None:
        return None, None
    from pretrained import load_with_vocabulary

    place = args.model_type if args.use_pretrained == "hub" else Path(args.use_pretrained)
    model, vocabulary = load_with_vocabulary(place)
    if args.block_size > model.block_size:
        raise InputError(f"--block_size {args.block_size} is more than the {model.block_size} positions of the "
                         "pretrained model")  # fmt: skip
    for parameter in model.parameters():  # row by row in memory, as a resumed run has them, to be equal to the last bit
        parameter.data = parameter.data.contiguous()
    return model.train(), vocabulary


def from_scratch(args: argparse.Namespace, vocab_size: int) -> GPT:
    """A new model of the type that the flags name."""
    from gpt import GPT

    config = GPT.get_default_config()
    config.model_type, config.vocab_size, config.block_size = args.model_type, vocab_size, args.block_size
    return GPT(config)


def load_data(args: argparse.Namespace, vocabulary, text: str) -> tuple[TextDataset, TextDataset]:
    """The first nine tenths of the text for training, the last for validation.

    Args:
        args: the flags.
        vocabulary: None for the characters of the whole text.
        text: all of it.

    Raises:
        InputError: it is too short, or all of one character.
    """
    from dataset import TextDataset, split
    from vocabulary import Characters

    vocabulary = vocabulary or Characters.of(text)
    if vocabulary.vocab_size < 2:
        raise InputError(f"the text consists of {text[0]!r} alone, so that there is nothing to learn: take another one")
    train_text, val_text = split(text)
    train_set = TextDataset(args, None, args.block_size, vocabulary=vocabulary, text=train_text)
    try:
        val_set = TextDataset(args, None, args.block_size, vocabulary=vocabulary, text=val_text)
    except InputError as error:
        raise InputError(f"the last tenth of the text, which is for validation, is too short: {error}") from error
    return train_set, val_set


def _num_devices(args: argparse.Namespace) -> int:
    """How many processes the flags ask for.

    Raises:
        InputError: this machine has not so many.
    """
    import torch

    num_gpus = 0 if args.accelerator == "cpu" else torch.cuda.device_count()
    there = num_gpus or os.cpu_count()
    if args.devices != "auto" and int(args.devices) > there:
        raise InputError(f"--devices is {args.devices}, but this machine has {there}: give at most so many")
    devices = max(1, num_gpus) if args.devices == "auto" else int(args.devices)
    return devices * args.num_nodes


def make_trainer(
    args: argparse.Namespace, log_dir: Path, checkpoint: Path | None, record: RunRecord, rounds: int, first_step: int
) -> pl.Trainer:
    """Trainer whose epochs are the rounds between two validations; it writes into one run folder.

    Args:
        args: the flags.
        log_dir: where a new run gets its folder.
        checkpoint: of the run to continue.
        record: of the run.
        rounds: of the whole training, those before an interruption included.
        first_step: steps that the run has; what TensorBoard shows beyond them is written again.
    """
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.loggers import TensorBoardLogger
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from callbacks import BestAndLast, GenerateCallback, SeedEveryRound, StepBar
    from run_folder import OneStepCheckpoints, logger_place, wants_bar

    place = {"save_dir": log_dir}
    if checkpoint is not None:
        place = {**logger_place(checkpoint), "purge_step": first_step + 1}
    bar = wants_bar(args.progress_bar)
    callbacks = [
        SeedEveryRound(args.seed),
        GenerateCallback(args.generate_batch_size, args.generate_every_n_steps),
        record,
        BestAndLast(kept_steps=first_step),
        *([StepBar(record)] if bar else []),
    ]
    if args.accelerator == "gpu" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise InputError("--accelerator gpu: PyTorch finds no GPU here: leave the flag out to train on the CPU")
    try:
        trainer = pl.Trainer(
            accelerator=args.accelerator,
            devices=args.devices if args.devices == "auto" else int(args.devices),
            num_nodes=args.num_nodes,
            strategy=args.strategy,
            precision=args.precision,
            max_epochs=rounds,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            gradient_clip_val=args.clip_grad_norm or None,
            logger=TensorBoardLogger(**place, default_hp_metric=False),
            plugins=[OneStepCheckpoints()],
            callbacks=callbacks,
            enable_progress_bar=bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--accelerator, --devices, --num_nodes, --strategy or --precision cannot be used here: {reason}"
        ) from error
    if args.precision == "64-true" and trainer.strategy.root_device.type == "mps":
        raise InputError("--precision 64-true needs float64, which Apple's GPUs do not have: give --accelerator cpu")
    return trainer


def finish(args: argparse.Namespace, trainer: pl.Trainer, record: RunRecord, module: GPTLightningModule) -> None:
    """What a run leaves beside its metrics: the curves, and last of all summary.json."""
    import run_folder
    from pictures import plot_curves

    folder, board = Path(trainer.logger.log_dir), trainer.logger.experiment
    figure = plot_curves(record.rows, module.train_dataset.vocab_size)
    figure.savefig(folder / "curves.png", dpi=150)
    board.add_figure("curves", figure, global_step=trainer.global_step)
    results = {
        "parameters": sum(p.numel() for p in module.parameters()),
        **{name: getattr(module.model.config, name) for name in ("vocab_size", "n_layer", "n_head", "n_embd")},
    }
    run_folder.write_summary(folder, args, trainer, record, results)
    board.flush()
    best = min(record.rows, key=lambda row: row["val_loss"])
    log.info("best validation: %.4f nats, %.3f bits per character at step %d; texts and numbers are in %s",
             best["val_loss"], best["val_bpc"], best["step"], folder)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 after one sentence about what cannot be used, 130 after an
    interruption, or 143 after SIGTERM."""
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for client in ("httpx", "httpx2"):  # which huggingface_hub uses, by its version
        logging.getLogger(client).setLevel(logging.WARNING)
    try:
        train(args)
    except InputError as error:
        if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")) == "0":  # once, and not from each process
            print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:  # Lightning's way to end: with a code after Ctrl-C, with none after SIGTERM
        return 130 if stop.code else 143
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

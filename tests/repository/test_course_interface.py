"""What students call and run under the course's names: flags, training steps, and what is written where."""

import math
import re
from argparse import Namespace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from gpt_models import new_gpt

FLAGS = {
    "part1": "z_dim num_filters lr batch_size data_dir epochs seed num_workers log_dir progress_bar",
    "part2": "z_dim batch_size lambda_ ae_lr d_lr data_dir epochs seed num_workers log_dir no-cuda",
    "part3": "txt_file model_type block_size use_pretrained train_batch_size generate_batch_size "
    "generate_every_n_steps learning_rate weight_decay betas num_epochs clip_grad_norm log_dir seed num_workers "
    "progress_bar",
}


def tags_below(folder: Path, kind: str) -> set[str]:
    """Tags of this kind in all of TensorBoard's files below a folder."""
    tags = set()
    for file in folder.rglob("events.out.tfevents.*"):
        board = EventAccumulator(str(file))
        board.Reload()
        tags |= set(board.Tags()[kind])
    return tags


@pytest.mark.parametrize("name", FLAGS)
def test_the_course_s_flags(request, name):
    known = re.findall(r"--([\w-]+)", request.getfixturevalue(name).args.build_parser().format_help())
    assert set(FLAGS[name].split()) <= set(known)


# ------------------------------------------------------------------------------------------------------------ part 1


def test_the_vae_in_a_plain_trainer(part1, tmp_path):
    """Without the callbacks of `train_vae`, which write the losses of training and validation into TensorBoard."""
    model = part1.train_pl.VAE(num_filters=1, z_dim=2, lr=1e-3)
    batch = torch.randint(16, (6, 1, 28, 28)), torch.zeros(6, dtype=torch.long)
    loader = DataLoader([batch], batch_size=None)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", devices=1, logger=TensorBoardLogger(tmp_path),
                         enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                         log_every_n_steps=1)  # fmt: skip
    trainer.fit(model, loader, loader)
    losses = ("reconstruction_loss", "regularization_loss", "ELBO", "bpd")
    assert {f"{mode}_{loss}" for mode in ("train", "val") for loss in losses} <= trainer.callback_metrics.keys()
    trainer.test(model, loader, verbose=False)
    assert {f"test_{loss}" for loss in losses} <= tags_below(tmp_path, "scalars")


# ------------------------------------------------------------------------------------------------------------ part 2


@pytest.mark.parametrize("what", ["samples", "reconstructions"])
def test_pictures_are_written_under_the_course_s_names(part2, tmp_path, what):
    model = part2.models.AdversarialAE(z_dim=3)
    for folder in ("Prior_samples", "Reconstruction"):
        (tmp_path / "results" / folder).mkdir(parents=True)
    with SummaryWriter(str(tmp_path)) as writer:
        if what == "samples":
            part2.train.generate_and_save(model, 7, writer, 5)
            file = "Prior_samples/samples_epoch_7.png"
        else:
            part2.train.save_reconstruction(model, 7, writer, torch.rand(5, 1, 28, 28) * 2 - 1)
            file = "Reconstruction/reconstruction_7.png"
    with Image.open(tmp_path / "results" / file) as picture:
        width, height = picture.size
    assert width * height >= 5 * 28 * 28, "as many images as were asked for"
    assert what in tags_below(tmp_path, "images")


# ------------------------------------------------------------------------------------------------------------ part 3


def test_the_gpt_module_in_a_plain_trainer(part3, tmp_path):
    """The text repeats ten characters, of which each has one successor: the loss falls from log 10 towards 0."""
    text = tmp_path / "text.txt"
    text.write_text("abcdefghij" * 30)
    args = Namespace(txt_file=str(text), model_type="gpt-nano", block_size=8, use_pretrained=None, train_batch_size=29,
                     generate_batch_size=2, generate_every_n_steps=1000, learning_rate=1e-2, weight_decay=0.1,
                     betas=[0.9, 0.95], num_epochs=10, clip_grad_norm=1.0, log_dir=str(tmp_path), seed=0, num_workers=0,
                     progress_bar=False)  # fmt: skip
    dataset = part3.dataset.TextDataset(args, str(text), block_size=8)
    model = new_gpt(part3, n_layer=1, n_head=1, n_embd=16, vocab_size=dataset.vocab_size, block_size=8)
    module = part3.train.GPTLightningModule(args, model, dataset)

    def mean_loss() -> float:
        x, y = (torch.stack(column) for column in zip(*(dataset[i] for i in range(10)), strict=True))
        with torch.no_grad():
            return F.cross_entropy(model.eval()(x).flatten(end_dim=1), y.flatten()).item()

    assert mean_loss() == pytest.approx(math.log(10), abs=0.3)
    model.train()
    trainer = pl.Trainer(max_epochs=10, accelerator="cpu", devices=1, limit_val_batches=0, logger=False,
                         enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(module, DataLoader(dataset, batch_size=29, shuffle=True))
    assert mean_loss() < 0.5
    assert trainer.callback_metrics["train_loss"] < math.log(10) and trainer.callback_metrics["train_acc"] > 0.1

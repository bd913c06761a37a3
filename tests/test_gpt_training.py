"""A real training of part 3 through `train`, what it leaves, that it can be repeated, and that it can be resumed."""

import csv
import json
import math
import os
import shlex
import signal
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpt_models import small_gpt
from plain_figures import drawn_figures
from runs import assert_equal, rows_of

TEXT = "".join(f"{i} and {i * i % 17} make {(i + i * i) % 17}.\n" for i in range(120))
LOSSES = ("train_loss", "train_acc", "val_loss", "val_acc", "val_bpc")


@pytest.fixture(scope="module")
def text_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "sums.txt"
    path.write_text(TEXT)
    return path


def flags(text_file: Path, log_dir: Path, **changes) -> Namespace:
    """Seven steps with a validation after every third."""
    values = {"model_type": "gpt-nano", "block_size": 13, "train_batch_size": 5, "max_steps": 7, "seed": 3,
              "val_every_n_steps": 3, "generate_every_n_steps": 4, "generate_batch_size": 2}  # fmt: skip
    return Namespace(**{**values, "txt_file": text_file, "log_dir": log_dir, **changes})


@pytest.fixture(scope="module")
def finished(_parts, text_file, tmp_path_factory):
    """Folder and results of one finished run."""
    log_dir = tmp_path_factory.mktemp("finished")
    with _parts["part3"].imported() as part3, drawn_figures():
        results = part3.train.train(flags(text_file, log_dir))
    return log_dir / "lightning_logs" / "version_0", results


def checkpoint_of(run: Path, which: str = "last") -> dict:
    return torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)


def test_leaves_its_files(finished):
    run, _ = finished
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {"hparams.yaml", "metrics.csv", "summary.json", "curves.png", "checkpoints/best.ckpt",
            "checkpoints/last.ckpt", *(f"texts/step_{n}.txt" for n in (0, 4, 7))} <= files  # fmt: skip
    text = (run / "texts" / "step_7.txt").read_text()
    assert text.count("-" * 80) == 1 and set(text) - {"-"} <= set(TEXT), "two texts of known characters"
    assert len(text) >= 2 * 20


def test_rows_after_every_third_step_and_the_last(finished, text_file):
    run, results = finished
    rows = [{name: float(value) for name, value in row.items()} for row in rows_of(run)]
    assert [row["step"] for row in rows] == [3, 6, 7]
    for row in rows:
        assert all(math.isfinite(row[name]) for name in LOSSES)
        assert row["val_bpc"] == pytest.approx(row["val_loss"] / math.log(2))
        assert 0 <= row["val_acc"] <= 1 and row["learning_rate"] == 5e-4
    assert rows[0]["seconds"] < rows[1]["seconds"] < rows[2]["seconds"]
    assert results == pytest.approx({name: rows[-1][name] for name in results})
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 7 and summary["tokens"] == 7 * 5 * 13
    assert summary["best_val_loss"] == pytest.approx(min(row["val_loss"] for row in rows))
    assert summary["flags"]["txt_file"] == str(text_file) and summary["seed"] == 3


def test_the_validation_loss_is_that_of_the_last_tenth(part3, finished):
    """Computed anew from the checkpoint, window by window."""
    run, results = finished
    model, vocabulary, _ = part3.run_folder.load_gpt(run / "checkpoints" / "last.ckpt")
    tokens = torch.tensor(vocabulary.encode(TEXT[-round(len(TEXT) / 10) :]))
    losses, hits = [], []
    with torch.no_grad():
        for start in range(0, len(tokens) - 13, 13):
            logits, target = model(tokens[None, start : start + 13])[0], tokens[start + 1 : start + 14]
            losses.append(F.cross_entropy(logits, target))
            hits.append((logits.argmax(dim=-1) == target).float().mean())
    assert results["val_loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert results["val_acc"] == pytest.approx(torch.stack(hits).mean().item(), rel=1e-5)


def test_tensorboard_has_the_tags(finished):
    run, results = finished
    board = EventAccumulator(str(run))
    board.Reload()
    tags = board.Tags()
    assert {"train_loss", "train_acc", "val_loss", "val_acc", "val_bpc", "learning_rate"} <= set(tags["scalars"])
    assert "Training texts/text_summary" in tags["tensors"]
    assert [event.step for event in board.Scalars("val_loss")] == [3, 6, 7]
    assert board.Scalars("val_loss")[-1].value == pytest.approx(results["val_loss"])
    assert [event.step for event in board.Tensors("Training texts/text_summary")] == [0, 4, 7]


def test_the_same_seed_gives_the_same_run(part3, finished, text_file, tmp_path):
    run, results = finished
    again = part3.train.train(flags(text_file, tmp_path))
    assert again == results
    again = checkpoint_of(tmp_path / "lightning_logs" / "version_0")
    assert_equal(again["state_dict"], checkpoint_of(run)["state_dict"])


def test_a_resumed_run_ends_as_an_uninterrupted_one(part3, finished, text_file, tmp_path):
    """Bit for bit, with 4 passes over the text of different order; the first piece ends after a round."""
    run, results = finished
    part3.train.train(flags(text_file, tmp_path, max_steps=3))
    again = part3.train.train(flags(text_file, tmp_path, max_steps=7, resume="newest"))
    resumed = tmp_path / "lightning_logs" / "version_0"
    assert again == results
    assert [path.name for path in resumed.parent.iterdir()] == ["version_0"]
    one, other = checkpoint_of(resumed), checkpoint_of(run)
    for key in ("state_dict", "optimizer_states", "global_step"):
        assert_equal(one[key], other[key])
    keep = ("step", *LOSSES)
    assert [[row[name] for name in keep] for row in rows_of(resumed)] == [
        [row[name] for name in keep] for row in rows_of(run)
    ]


def test_an_interrupted_round_is_repeated(part3, finished, text_file, tmp_path, monkeypatch, capsys):
    """Ctrl-C in the fifth step: what was kept after the third leads to the same end."""
    run, results = finished
    original = part3.train.GPTLightningModule.training_step

    def interrupt(self, batch, batch_idx):
        if self.trainer.global_step == 4:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    monkeypatch.setattr(part3.metrics, "LOG_EVERY_N_STEPS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(part3.train.GPTLightningModule, "training_step", interrupt)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            part3.train.train(flags(text_file, tmp_path))
    resumed = tmp_path / "lightning_logs" / "version_0"
    assert checkpoint_of(resumed)["global_step"] == 3
    assert part3.train.train(flags(text_file, tmp_path, resume=str(resumed))) == results
    assert_equal(checkpoint_of(resumed)["state_dict"], checkpoint_of(run)["state_dict"])
    with open(resumed / "metrics.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "6", "7"]
    board = EventAccumulator(str(resumed))
    board.Reload()
    assert [event.step for event in board.Scalars("train_loss")] == [1, 2, 3, 4, 5, 6, 7], "the fourth is shown once"


@pytest.mark.parametrize("place", ["texts", "curves"])
def test_what_follows_the_last_step_is_made_up_for(
    part3, finished, text_file, tmp_path, monkeypatch, caplog, capsys, place
):
    """Ctrl-C after the last checkpoint: the run is not complete, and resuming it is what completes it."""
    run, results = finished

    original = part3.callbacks.GenerateCallback.sample_and_save

    def interrupt(*args):
        raise KeyboardInterrupt

    def interrupt_the_last(self, trainer, pl_module):
        (interrupt if trainer.global_step == 7 else original)(self, trainer, pl_module)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        if place == "texts":
            patch.setattr(part3.callbacks.GenerateCallback, "sample_and_save", interrupt_the_last)
        else:
            patch.setattr(part3.training_run, "plot_curves", interrupt)
        with caplog.at_level("INFO"), pytest.raises((KeyboardInterrupt, SystemExit)):
            part3.train.train(flags(text_file, tmp_path))
    signal.signal(signal.SIGINT, handler)  # which Lightning ignores after an interruption
    assert f"7 steps are kept; continue with {shlex.quote(sys.executable)} " in caplog.text
    resumed = tmp_path / "lightning_logs" / "version_0"
    assert not (resumed / "summary.json").exists()
    assert part3.train.train(flags(text_file, tmp_path, resume=str(resumed))) == results
    summary = json.loads((resumed / "summary.json").read_text())
    assert summary["steps"] == 7 and summary["val_loss"] == results["val_loss"]
    assert (resumed / "texts" / "step_7.txt").read_text() == (run / "texts" / "step_7.txt").read_text()
    with pytest.raises(part3.inputs.InputError, match="already has 7 steps"):
        part3.train.train(flags(text_file, tmp_path, resume=str(resumed)))


def test_a_trainer_that_does_not_reload_its_batches_goes_on_in_the_text(part3):
    dataset = part3.dataset.TextDataset(None, None, 13, text=TEXT)
    config = Namespace(train_batch_size=5, val_every_n_steps=3, max_steps=9, seed=3, model_type="gpt-nano")
    model = small_gpt(part3, vocab_size=dataset.vocab_size, block_size=13).train()
    module = part3.train.GPTLightningModule(config, model, dataset)
    seen, original = [], module.training_step

    def training_step(batch, batch_idx):
        seen.append(batch[0])
        return original(batch, batch_idx)

    module.training_step = training_step
    pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False,
               enable_progress_bar=False, limit_val_batches=0).fit(module)  # fmt: skip
    wanted = part3.dataset.Batches(len(dataset), 5, first_step=0, num_steps=9, seed=3)
    assert torch.equal(torch.stack(seen), torch.stack([dataset.__getitems__(batch)[0] for batch in wanted]))


def test_sigterm_ends_a_training_with_its_own_exit_code(part3, text_file, tmp_path, monkeypatch, caplog):
    original = part3.train.GPTLightningModule.training_step

    def terminated(self, batch, batch_idx):
        if self.trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(part3.train.GPTLightningModule, "training_step", terminated)
    with caplog.at_level("INFO"):
        assert part3.train.main(flags(text_file, tmp_path)) == 143
    assert f"3 steps are kept; continue with {shlex.quote(sys.executable)} " in caplog.text


def test_a_continued_run_is_not_complete_until_its_end(part3, text_file, tmp_path, monkeypatch):
    """The old summary goes when a complete run is continued, and comes anew at the end."""
    part3.train.train(flags(text_file, tmp_path, max_steps=1))
    summary = tmp_path / "lightning_logs" / "version_0" / "summary.json"
    assert json.loads(summary.read_text())["steps"] == 1
    with monkeypatch.context() as patch:
        patch.setattr(part3.train, "write_results", lambda *args: None)
        part3.train.train(flags(text_file, tmp_path, max_steps=2, resume="newest"))
    assert not summary.exists()


def test_a_run_knows_its_text_wherever_it_is(part3, text_file, tmp_path, monkeypatch):
    """A relative path is found again from elsewhere, a moved text by its new path, and another text is refused."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "t.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path / "here")
    part3.train.train(flags(Path("t.txt"), tmp_path, max_steps=1))
    monkeypatch.chdir(tmp_path)
    resume = {"log_dir": str(tmp_path), "resume": "newest"}
    part3.train.train(Namespace(**resume, max_steps=2))
    (tmp_path / "here" / "t.txt").unlink()
    part3.train.train(Namespace(**resume, max_steps=3, txt_file=str(text_file)))
    (tmp_path / "other.txt").write_text(TEXT.replace("make", "are "))
    with pytest.raises(part3.inputs.InputError, match=r"other\.txt is not the text that the run to resume"):
        part3.train.train(Namespace(**resume, max_steps=4, txt_file=str(tmp_path / "other.txt")))


def test_a_cosine_is_made_for_one_number_of_steps(part3, text_file, tmp_path):
    part3.train.train(flags(text_file, tmp_path, max_steps=1, lr_schedule="cosine"))
    with pytest.raises(part3.inputs.InputError, match=r"cosine schedule of the run .* planned for --max_steps 1"):
        part3.train.train(Namespace(log_dir=str(tmp_path), resume="newest", max_steps=2))


def test_a_schedule_is_resumed_too(part3, text_file, tmp_path):
    """Warm-up over 2 steps to 5e-4, then half a cosine to 1e-4 at the last of 7 steps."""
    schedule = {"warmup_steps": 2, "lr_schedule": "cosine", "min_learning_rate": 1e-4, "val_every_n_steps": 1}
    part3.train.train(flags(text_file, tmp_path / "a", **schedule))
    rates = [float(row["learning_rate"]) for row in rows_of(tmp_path / "a" / "lightning_logs" / "version_0")]
    # A row's rate is what the next step would use, so the first one stands for step 1.
    expected = [1e-4 + 2e-4 * (1 + math.cos(math.pi * i / 4)) for i in range(5)]
    assert rates[:6] == pytest.approx([5e-4, *expected])
    args = flags(text_file, tmp_path / "b", **schedule)
    with pytest.raises(part3.inputs.InputError):
        part3.train.train(Namespace(**{**vars(args), "resume": "newest"}))


def test_rates_by_hand(part3):
    config = Namespace(warmup_steps=4, lr_schedule="cosine", learning_rate=2.0, min_learning_rate=0.5)
    rates = [2 * part3.training_run.rate_at(step, 11, config) for step in (0, 1, 3, 4, 7, 10, 11)]
    assert rates == pytest.approx([0.5, 1.0, 2.0, 2.0, 0.5 + 0.75, 0.5, 0.5])
    config.lr_schedule = "constant"
    assert [part3.training_run.rate_at(step, 11, config) for step in (1, 4, 10)] == [0.5, 1, 1]

"""A real training of part 3 through `train`, what it leaves, that it can be repeated, and that it can be resumed."""

import csv
import json
import math
import os
import shlex
import signal
import sys
import tempfile
import threading
from argparse import Namespace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpt_models import small_gpt
from run_files import assert_equal, rows_of

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
    with _parts["part3"].imported() as part3:
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
    assert len(text) >= 2 * 300


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
    original = part3.lightning_module.GPTLightningModule.training_step

    def interrupt(self, batch, batch_idx):
        if self.trainer.global_step == 4:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    monkeypatch.setattr(part3.lightning_module, "LOG_EVERY_N_STEPS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(part3.lightning_module.GPTLightningModule, "training_step", interrupt)
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
            patch.setattr(part3.pictures, "plot_curves", interrupt)
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
    module = part3.lightning_module.GPTLightningModule(config, model, dataset)
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
    original = part3.lightning_module.GPTLightningModule.training_step

    def terminated(self, batch, batch_idx):
        if self.trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(part3.lightning_module.GPTLightningModule, "training_step", terminated)
    monkeypatch.setattr(part3.train, "parse", lambda argv: flags(text_file, tmp_path))
    with caplog.at_level("INFO"):
        assert part3.train.main([]) == 143
    assert f"3 steps are kept; continue with {shlex.quote(sys.executable)} " in caplog.text


def test_a_continued_run_is_not_complete_until_its_end(part3, text_file, tmp_path, monkeypatch):
    """The old summary goes when a complete run is continued, and comes anew at the end."""
    part3.train.train(flags(text_file, tmp_path, max_steps=1))
    summary = tmp_path / "lightning_logs" / "version_0" / "summary.json"
    assert json.loads(summary.read_text())["steps"] == 1
    with monkeypatch.context() as patch:
        patch.setattr(part3.train, "finish", lambda *args: None)
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
    with pytest.raises(part3.inputs.InputError, match=r"other\.txt is another text than the run to resume"):
        part3.train.train(Namespace(**resume, max_steps=4, txt_file=str(tmp_path / "other.txt")))


def test_a_cosine_is_made_for_one_number_of_steps(part3, text_file, tmp_path):
    part3.train.train(flags(text_file, tmp_path, max_steps=1, lr_schedule="cosine"))
    with pytest.raises(part3.inputs.InputError, match="the cosine of the run to resume is made for 1"):
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
    rates = [2 * part3.lightning_module.rate_at(step, 11, config) for step in (0, 1, 3, 4, 7, 10, 11)]
    assert rates == pytest.approx([0.5, 1.0, 2.0, 2.0, 0.5 + 0.75, 0.5, 0.5])
    config.lr_schedule = "constant"
    assert [part3.lightning_module.rate_at(step, 11, config) for step in (1, 4, 10)] == [0.5, 1, 1]


def test_a_small_text_is_learned_by_heart(part3, tmp_path):
    """After 150 steps the model continues a text that repeats itself."""
    text = "abcdefgh" * 40
    (tmp_path / "t.txt").write_text(text)
    args = flags(tmp_path / "t.txt", tmp_path, max_steps=150, train_batch_size=16, learning_rate=5e-3,
                 val_every_n_steps=150, generate_every_n_steps=1000)  # fmt: skip
    results = part3.train.train(args)
    assert results["val_loss"] < 0.1 and results["val_acc"] > 0.95
    run = tmp_path / "lightning_logs" / "version_0"
    model, vocabulary, _ = part3.run_folder.load_gpt(run / "checkpoints" / "best.ckpt")
    tokens = model.generate(torch.tensor([vocabulary.encode("cdefghabcdef")]), 20)
    assert vocabulary.decode(tokens[0].tolist()) == "cdefghab" * 4


def test_gradients_are_clipped(part3, text_file, tmp_path):
    """AdamW hardly depends on the gradients' size, so they are looked at themselves, after the step that used them."""
    norms = []
    original = part3.callbacks.GenerateCallback

    class Both(original):
        def on_train_batch_end(self, trainer, pl_module, *args):
            super().on_train_batch_end(trainer, pl_module, *args)
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in pl_module.parameters()]).item())

    part3.callbacks.GenerateCallback = Both
    try:
        part3.train.train(flags(text_file, tmp_path / "a", clip_grad_norm=0.01, max_steps=2))
        clipped, norms[:] = list(norms), []
        part3.train.train(flags(text_file, tmp_path / "b", clip_grad_norm=0.0, max_steps=2))
    finally:
        part3.callbacks.GenerateCallback = original
    assert clipped == pytest.approx([0.01, 0.01], rel=1e-3)
    assert min(norms) > 0.1


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one_in_float64(part3, text_file, tmp_path):
    """They are not rounded on their way from the checkpoint."""
    part3.train.train(flags(text_file, tmp_path / "whole", precision="64-true", max_steps=6))
    part3.train.train(flags(text_file, tmp_path / "parts", precision="64-true", max_steps=3))
    part3.train.train(flags(text_file, tmp_path / "parts", precision="64-true", max_steps=6, resume="newest"))
    runs = (tmp_path / name / "lightning_logs" / "version_0" for name in ("whole", "parts"))
    whole, parts = (checkpoint_of(run)["state_dict"] for run in runs)
    assert all(weight.dtype == torch.float64 for weight in parts.values() if weight.is_floating_point())
    assert_equal(whole, parts)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_number_formats(part3, text_file, tmp_path, precision):
    results = part3.train.train(flags(text_file, tmp_path, precision=precision, max_steps=3))
    assert results["val_loss"] == pytest.approx(math.log(len(set(TEXT))), abs=0.3)


def test_fine_tuning_starts_from_pretrained_weights_on_their_tokens(part3, text_file, tmp_path):
    """A folder in the published format, with a vocabulary of characters."""
    characters = part3.vocabulary.Characters.of(TEXT)
    model = small_gpt(part3, vocab_size=characters.vocab_size, block_size=17)
    part3.pretrained.save(model, tmp_path / "model", characters)
    args = flags(text_file, tmp_path, use_pretrained=str(tmp_path / "model"), learning_rate=1e-30, max_steps=2)
    assert all(weight.is_contiguous() for weight in part3.train.new_model(args)[0].parameters()), "as after --resume"
    part3.train.train(args)
    run = tmp_path / "lightning_logs" / "version_0"
    tuned, vocabulary, _ = part3.run_folder.load_gpt(run / "checkpoints" / "last.ckpt")
    assert vocabulary.characters == characters.characters and tuned.block_size == 17
    assert_equal(dict(tuned.state_dict()), dict(model.state_dict()))
    args.block_size = 18
    with pytest.raises(part3.inputs.InputError, match="--block_size 18 is more than the 17 positions"):
        part3.train.train(args)


def test_a_loss_that_is_not_finite_stops_the_run_with_the_step(part3, text_file, tmp_path, monkeypatch):
    """Weights are spoilt after step 4: step 5 is named, and the checkpoint after step 3 stays. With an absurd learning
    rate the first step spoils them itself."""
    original = part3.lightning_module.GPTLightningModule.on_train_batch_end

    def spoil(self, *args):
        original(self, *args)
        if self.trainer.global_step == 4:
            torch.nn.init.constant_(self.model.lm_head.weight, torch.nan)

    monkeypatch.setattr(part3.lightning_module.GPTLightningModule, "on_train_batch_end", spoil)
    message = r"the loss is not finite at step 5: lower --learning_rate.*the checkpoint after step 3 is kept"
    with pytest.raises(part3.lightning_module.NotFiniteError, match=message):
        part3.train.train(flags(text_file, tmp_path))
    run = tmp_path / "lightning_logs" / "version_0"
    assert all(weight.isfinite().all() for weight in checkpoint_of(run)["state_dict"].values())
    with pytest.raises(part3.lightning_module.NotFiniteError, match=r"at step 2: .*there is no checkpoint yet"):
        part3.train.train(flags(text_file, tmp_path / "b", learning_rate=1e30, max_steps=3))


def test_nothing_is_sampled_from_weights_that_are_not_finite(part3, text_file, tmp_path, monkeypatch):
    """Samples come at every step; the module by itself would look after step 3. The first step overshoots, or its
    gradient is not finite: the loss of the second would not be."""
    with pytest.raises(part3.lightning_module.NotFiniteError, match=r"the loss is not finite at step 2: "):
        part3.train.train(flags(text_file, tmp_path, learning_rate=1e30, generate_every_n_steps=1))
    original = part3.lightning_module.GPTLightningModule.configure_gradient_clipping

    def spoil(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.model.lm_head.weight.grad[0, 0] = torch.nan

    monkeypatch.setattr(part3.lightning_module.GPTLightningModule, "configure_gradient_clipping", spoil)
    with pytest.raises(part3.lightning_module.NotFiniteError, match=r"the loss is not finite at step 2: "):
        part3.train.train(flags(text_file, tmp_path / "b", generate_every_n_steps=1))


def test_a_checkpoint_is_written_where_it_belongs(part3, text_file, tmp_path, monkeypatch):
    """And not by way of the folder for temporary files, which may be on another disk or full. A failure leaves the old
    one and nothing else."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    part3.train.train(flags(text_file, tmp_path, max_steps=3))
    folder = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    before = (folder / "last.ckpt").read_bytes()
    with pytest.raises(Exception, match="pickle"):
        part3.run_folder.OneStepCheckpoints().save_checkpoint({"weights": threading.Lock()}, str(folder / "last.ckpt"))
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert (folder / "last.ckpt").read_bytes() == before


# ------------------------------------------------------------------------------------------ the module by itself


def test_the_module_trains_what_it_is_given_and_generates(part3, text_file, capsys):
    """As the course's template uses it: its flags, a model and a data set."""
    dataset = part3.dataset.TextDataset(None, text_file, block_size=11)
    model = small_gpt(part3, vocab_size=dataset.vocab_size).train()
    config = Namespace(learning_rate=1e-3, weight_decay=0.1, betas=(0.9, 0.95), model_type="gpt-nano")
    module = part3.train.GPTLightningModule(config, model, dataset)
    assert isinstance(module.configure_optimizers(), torch.optim.AdamW)
    texts = module.generate(prompt="1 and", num_samples=3, n_steps=7, do_sample=True, top_k=5, verbose=False)
    assert len(texts) == 3 and all(text.startswith("1 and") and len(text) == 12 for text in texts)
    assert capsys.readouterr().out == ""
    assert model.training
    module.generate(prompt="2", num_samples=1, n_steps=4, verbose=True)
    assert capsys.readouterr().out.startswith("2")


def test_samples_leave_the_random_numbers_of_the_training_alone(part3, text_file):
    dataset = part3.dataset.TextDataset(None, text_file, block_size=11)
    config = Namespace(model_type="gpt-nano")
    module = part3.train.GPTLightningModule(config, small_gpt(part3, vocab_size=dataset.vocab_size), dataset)
    state = torch.get_rng_state()
    module.generate(num_samples=2, n_steps=5, verbose=False)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bar", [False, True])
def test_each_validation_says_how_long_the_rest_will_take(part3, text_file, tmp_path, caplog, capsys, bar):
    record = part3.callbacks.RunRecord(flags(text_file, tmp_path, progress_bar=False, betas=(0.9, 0.95)), 7, 65, "")
    record.rows = [{"tokens_per_second": 65.0}, {"tokens_per_second": 0.13}]
    assert str(record.time_left(3)) == "0:33:20", "4 steps of 65 tokens, 100 seconds for 13 of them"
    with caplog.at_level("INFO"):
        part3.train.train(flags(text_file, tmp_path, progress_bar=bar))
    if bar:
        assert "left=0:00:0" in capsys.readouterr().out
    else:
        lines = [line for line in caplog.text.splitlines() if " left" in line]
        assert len(lines) == 3 and lines[2].endswith(" tokens/s, about 0:00:00 left")

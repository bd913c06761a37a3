"""What the steps of part 3's training do: learning, clipping, number formats, bad losses; and the module by itself."""

import math
import tempfile
import threading
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from gpt_models import small_gpt
from runs import assert_equal

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


def checkpoint_of(run: Path, which: str = "last") -> dict:
    return torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)


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
    original = part3.training_run.GenerateCallback

    class Both(original):
        def on_train_batch_end(self, trainer, pl_module, *args):
            super().on_train_batch_end(trainer, pl_module, *args)
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in pl_module.parameters()]).item())

    part3.training_run.GenerateCallback = Both
    try:
        part3.train.train(flags(text_file, tmp_path / "a", clip_grad_norm=0.01, max_steps=2))
        clipped, norms[:] = list(norms), []
        part3.train.train(flags(text_file, tmp_path / "b", clip_grad_norm=0.0, max_steps=2))
    finally:
        part3.training_run.GenerateCallback = original
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
    settings = part3.inputs.resolve_settings(args, read_checkpoint=None)
    start = part3.training_run.make_model(settings, characters)
    assert all(weight.is_contiguous() for weight in start.parameters()), "as after --resume"
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
    original = part3.train.GPTLightningModule.on_train_batch_end

    def spoil(self, *args):
        original(self, *args)
        if self.trainer.global_step == 4:
            torch.nn.init.constant_(self.model.lm_head.weight, torch.nan)

    monkeypatch.setattr(part3.train.GPTLightningModule, "on_train_batch_end", spoil)
    message = r"the loss is not finite at step 5: lower --learning_rate.*the checkpoint after step 3 is kept"
    with pytest.raises(part3.inputs.NotFiniteError, match=message):
        part3.train.train(flags(text_file, tmp_path))
    run = tmp_path / "lightning_logs" / "version_0"
    assert all(weight.isfinite().all() for weight in checkpoint_of(run)["state_dict"].values())
    with pytest.raises(part3.inputs.NotFiniteError, match=r"at step 2: .*there is no checkpoint yet"):
        part3.train.train(flags(text_file, tmp_path / "b", learning_rate=1e30, max_steps=3))


def test_nothing_is_sampled_from_weights_that_are_not_finite(part3, text_file, tmp_path, monkeypatch):
    """Samples come at every step; the module by itself would look after step 3. The first step overshoots, or its
    gradient is not finite: the loss of the second would not be."""
    with pytest.raises(part3.inputs.NotFiniteError, match=r"the loss is not finite at step 2: "):
        part3.train.train(flags(text_file, tmp_path, learning_rate=1e30, generate_every_n_steps=1))
    original = part3.train.GPTLightningModule.configure_gradient_clipping

    def spoil(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.model.lm_head.weight.grad[0, 0] = torch.nan

    monkeypatch.setattr(part3.train.GPTLightningModule, "configure_gradient_clipping", spoil)
    with pytest.raises(part3.inputs.NotFiniteError, match=r"the loss is not finite at step 2: "):
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
        part3.training_run.AtomicCheckpointIO().save_checkpoint(
            {"weights": threading.Lock()}, str(folder / "last.ckpt")
        )
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

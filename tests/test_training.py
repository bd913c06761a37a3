"""A real training through `train_vae`, what it leaves, that it can be repeated, and that it can be resumed."""

import json
import math
import os
import shlex
import signal
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from plain_figures import drawn_figures
from runs import assert_equal, rows_of

STEPS_PER_EPOCH = 2


@pytest.fixture(autouse=True)
def _few_digits(part1, few_digits):
    with few_digits(part1):
        yield


def flags(log_dir: Path, **changes) -> Namespace:
    """A small model on a few digits: two steps an epoch."""
    values = {"dataset": "digits", "batch_size": 60, "num_filters": 4, "z_dim": 2, "epochs": 2, "seed": 3}
    return Namespace(**{**values, "log_dir": log_dir, **changes})


def run_of(log_dir: Path) -> Path:
    """The only run directory below a log directory."""
    (run,) = (log_dir / "lightning_logs").iterdir()
    return run


def checkpoint_of(run: Path, which: str = "last") -> dict:
    return torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def finished(_parts, few_digits, tmp_path_factory):
    """Log folder and test result of one finished run of two epochs, with importance samples."""
    log_dir = tmp_path_factory.mktemp("finished")
    with _parts["part1"].imported() as part1, few_digits(part1), drawn_figures():
        result = part1.train_pl.train_vae(flags(log_dir, importance_samples=3))
    return run_of(log_dir), result


def test_returns_the_test_result(finished):
    _, result = finished
    assert len(result) == 1
    assert {"test_bpd", "test_ELBO", "test_reconstruction_loss", "test_regularization_loss"} == set(result[0])
    rec, reg = result[0]["test_reconstruction_loss"], result[0]["test_regularization_loss"]
    assert result[0]["test_ELBO"] == pytest.approx(rec + reg, rel=1e-5)
    assert result[0]["test_bpd"] == pytest.approx((rec + reg) / (784 * math.log(2)), rel=1e-5)
    assert 2 < result[0]["test_bpd"] < 4.5


def test_leaves_its_files(finished):
    run, _ = finished
    expected = {
        "hparams.yaml", "metrics.csv", "summary.json", "bpd_curve.png", "codes.png", "vae_manifold.png",
        "epoch_0_samples.png", "epoch_2_samples.png",
    }  # fmt: skip
    assert expected <= {path.name for path in run.iterdir()}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    for picture in run.glob("*.png"):
        with Image.open(picture) as image:
            image.verify()
    with Image.open(run / "epoch_0_samples.png") as image:
        assert image.size == (8 * 30 + 2, 8 * 30 + 2), "a grid of 8 by 8 samples"


def test_metrics_are_means_over_the_epoch(finished):
    run, _ = finished
    rows = rows_of(run)
    assert [(row["epoch"], row["step"]) for row in rows] == [
        ("1", str(STEPS_PER_EPOCH)),
        ("2", str(2 * STEPS_PER_EPOCH)),
    ]
    for row in rows:
        for mode in ("train", "val"):
            rec, reg = float(row[f"{mode}_reconstruction_loss"]), float(row[f"{mode}_regularization_loss"])
            assert float(row[f"{mode}_ELBO"]) == pytest.approx(rec + reg, rel=1e-5)
            assert float(row[f"{mode}_bpd"]) == pytest.approx((rec + reg) / (784 * math.log(2)), rel=1e-5)
    assert float(rows[0]["train_bpd"]) == pytest.approx(4, abs=0.3), "training starts near 4 bits"


def test_summary_says_what_was_obtained_with_what(finished):
    run, result = finished
    text = (run / "summary.json").read_text()
    assert text.endswith("}\n")
    summary = json.loads(text)
    rows = rows_of(run)
    assert summary["test_bpd"] == result[0]["test_bpd"]
    assert summary["best_epoch"] == min((float(row["val_bpd"]), int(row["epoch"])) for row in rows)[1]
    assert summary["train_bpd"] == float(rows[-1]["train_bpd"])
    assert (summary["epochs"], summary["seed"], summary["importance_samples"]) == (2, 3, 3)
    assert summary["test_importance_weighted_nll"] == pytest.approx(
        summary["test_importance_weighted_bpd"] * 784 * math.log(2), rel=1e-5
    )
    assert summary["train_seconds"] > 0 and summary["device"] and summary["versions"]["torch"] and summary["command"]


def test_hparams_are_the_flags(finished):
    run, _ = finished
    hparams = yaml.safe_load((run / "hparams.yaml").read_text())
    assert (hparams["z_dim"], hparams["lr"], hparams["dataset"], hparams["seed"]) == (2, 1e-3, "digits", 3)


def test_tensorboard_has_the_tags(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, result = finished
    events = EventAccumulator(str(run))
    events.Reload()
    tags = events.Tags()
    losses = ("reconstruction_loss", "regularization_loss", "ELBO", "bpd")
    expected = {f"{mode}_{loss}" for mode in ("train", "val") for loss in losses} | {"test_bpd"}
    assert expected <= set(tags["scalars"]) and "hp_metric" not in tags["scalars"]
    assert {"Samples", "Manifold", "bpd_curve", "codes"} <= set(tags["images"])
    for tag in ("train_bpd", "val_bpd"):
        assert [event.step for event in events.Scalars(tag)] == [1, 2], "the horizontal axis counts epochs"
    assert [event.step for event in events.Images("Samples")] == [0, 2]
    (test,) = events.Scalars("test_bpd")
    assert (test.step, test.value) == (2, pytest.approx(result[0]["test_bpd"], rel=1e-6))
    (layout,) = events.Tensors("custom_scalars__config__")
    assert b"train_bpd" in layout.tensor_proto.string_val[0] and b"val_bpd" in layout.tensor_proto.string_val[0]


def test_projector_has_the_codes_with_their_labels(finished):
    run, _ = finished
    (folder,) = run.glob("*/codes")
    assert folder.relative_to(run).as_posix() in (run / "projector_config.pbtxt").read_text()
    points = [line.split("\t") for line in (folder / "tensors.tsv").read_text().splitlines()]
    assert len(points) == 40
    assert all(len(point) == 3 for point in points), "two dimensions, and the third that the projector needs"
    assert set((folder / "metadata.tsv").read_text().split()) == set("0123456789")


def test_the_best_checkpoint_is_the_one_that_was_tested(part1, finished):
    run, result = finished
    best = min(rows_of(run), key=lambda row: float(row["val_bpd"]))
    assert checkpoint_of(run, "best")["epoch"] + 1 == int(best["epoch"])
    model, _ = part1.train_pl.load_vae(run / "checkpoints" / "best.ckpt")
    _, _, test = part1.mnist.digits(batch_size=60)
    (batch,) = test
    with torch.no_grad():
        bpd = model(batch[0])[2].item()
    assert bpd == pytest.approx(result[0]["test_bpd"], rel=0.01)


def test_a_flag_that_is_missing_has_its_default(part1):
    args = part1.inputs.with_defaults(Namespace(z_dim=5))
    assert (args.z_dim, args.num_filters, args.lr, args.batch_size, args.epochs, args.seed) == (
        5,
        32,
        1e-3,
        128,
        80,
        42,
    )


def test_the_course_s_flags_and_defaults(part1):
    args = part1.inputs.build_parser().parse_args([])
    course = {
        "z_dim": 20, "num_filters": 32, "lr": 1e-3, "batch_size": 128, "data_dir": "../data/", "epochs": 80,
        "seed": 42, "log_dir": "VAE_logs", "progress_bar": False, "num_workers": 0,
    }  # fmt: skip
    assert {name: getattr(args, name) for name in course} == course


def test_the_same_seed_gives_the_same_numbers(part1, tmp_path):
    for name in ("a", "b", "other"):
        part1.train_pl.train_vae(flags(tmp_path / name, seed=4 if name == "other" else 3))
    a, b, other = ((run_of(tmp_path / name) / "metrics.csv").read_bytes() for name in ("a", "b", "other"))
    assert a == b
    assert a != other


@pytest.mark.parametrize(("num_workers", "ema"), [(0, 0), (1, 0.75)])
def test_a_resumed_run_equals_an_uninterrupted_one(part1, tmp_path, num_workers, ema):
    train_vae = part1.train_pl.train_vae
    train_vae(flags(tmp_path / "whole", epochs=4, num_workers=num_workers, ema=ema))
    train_vae(flags(tmp_path / "parts", epochs=2, num_workers=num_workers, ema=ema))
    train_vae(flags(tmp_path / "parts", epochs=4, num_workers=num_workers, resume="newest"))
    whole, parts = run_of(tmp_path / "whole"), run_of(tmp_path / "parts")
    for key in ("state_dict", "optimizer_states"):
        assert_equal(checkpoint_of(whole)[key], checkpoint_of(parts)[key])
    assert_equal(checkpoint_of(whole, "best")["state_dict"], checkpoint_of(parts, "best")["state_dict"])
    assert (whole / "metrics.csv").read_bytes() == (parts / "metrics.csv").read_bytes()
    summaries = [json.loads((run / "summary.json").read_text()) for run in (whole, parts)]
    assert summaries[0]["test_bpd"] == summaries[1]["test_bpd"]


def test_what_is_kept_is_the_moving_average_of_the_weights(part1, tmp_path, monkeypatch):
    """d A + (1 - d) W after each step, from the weights after the first one on."""
    seen, original = [], part1.train_pl.VAE.on_train_batch_end

    def on_train_batch_end(self, *args):
        seen.append({name: weight.detach().clone() for name, weight in self.named_parameters()})
        original(self, *args)

    monkeypatch.setattr(part1.train_pl.VAE, "on_train_batch_end", on_train_batch_end)
    part1.train_pl.train_vae(flags(tmp_path, ema=0.75))
    assert len(seen) == 2 * STEPS_PER_EPOCH
    kept = checkpoint_of(run_of(tmp_path))["state_dict"]
    for name, average in seen[0].items():
        for weights in seen[1:]:
            average = 0.75 * average + 0.25 * weights[name]
        torch.testing.assert_close(kept[name], average)


def test_a_run_that_was_moved_keeps_its_best_checkpoint(part1, tmp_path):
    """The first epoch is made out to be better than any other can be: it stays the best, wherever the folder is."""
    train_vae = part1.train_pl.train_vae
    train_vae(flags(tmp_path / "old", epochs=1))
    (tmp_path / "old").rename(tmp_path / "new")
    run = run_of(tmp_path / "new")
    checkpoint = checkpoint_of(run)
    (state,) = (state for name, state in checkpoint["callbacks"].items() if name.startswith("BestAndLast"))
    unbeatable = torch.tensor(0.001)
    state.update(best_model_score=unbeatable, kth_value=unbeatable)
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], unbeatable)
    torch.save(checkpoint, run / "checkpoints" / "last.ckpt")
    before = checkpoint_of(run, "best")
    train_vae(flags(tmp_path / "new", epochs=2, resume=str(run)))
    assert [row["epoch"] for row in rows_of(run)] == ["1", "2"]
    assert_equal(before["state_dict"], checkpoint_of(run, "best")["state_dict"])
    assert json.loads((run / "summary.json").read_text())["best_epoch"] == 1


def test_what_was_not_given_is_taken_from_the_resumed_run(part1, tmp_path):
    part1.train_pl.train_vae(flags(tmp_path / "deeper", epochs=1))
    assert part1.train.main(["--log_dir", str(tmp_path), "--resume", "--epochs", "2"]) == 0
    assert [row["epoch"] for row in rows_of(run_of(tmp_path / "deeper"))] == ["1", "2"]


def test_resuming_a_finished_run_repeats_its_evaluation_alone(part1, tmp_path, caplog):
    part1.train_pl.train_vae(flags(tmp_path))
    run = run_of(tmp_path)
    weights, metrics = checkpoint_of(run)["state_dict"], (run / "metrics.csv").read_bytes()
    (run / "summary.json").unlink()  # as where it was interrupted after its last epoch
    part1.train_pl.train_vae(flags(tmp_path, resume=run.name))
    assert "test_importance_weighted_bpd" not in json.loads((run / "summary.json").read_text())
    with caplog.at_level("INFO"):
        part1.train_pl.train_vae(flags(tmp_path, resume=run.name, importance_samples=2))
    assert yaml.safe_load((run / "hparams.yaml").read_text())["importance_samples"] == 2
    summary = json.loads((run / "summary.json").read_text())
    scores = summary["test_bpd"], summary["best_epoch"], summary["test_importance_weighted_bpd"]
    message = "test: %.4f bpd (best epoch %d of 2); importance-weighted with 2 samples %.4f bpd; pictures and numbers"
    assert message % scores in caplog.text
    assert (run / "metrics.csv").read_bytes() == metrics
    assert_equal(checkpoint_of(run)["state_dict"], weights)


def test_pictures_do_not_disturb_the_training(part1, finished):
    """Sampling leaves the random numbers and the mode of the module as they were."""

    class Trainer:
        is_global_zero = True
        logger = type("Logger", (), {"experiment": type("Writer", (), {"add_image": lambda *args, **kwargs: None})()})()

    vae = part1.train_pl.VAE(num_filters=4, z_dim=3, lr=1e-3).train()
    state = torch.get_rng_state()
    part1.train_pl.GenerateCallback(batch_size=2).sample_and_save(Trainer(), vae, epoch=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one_in_float64(part1, tmp_path):
    """They are not rounded on their way from the checkpoint."""
    part1.train_pl.train_vae(flags(tmp_path / "whole", precision="64-true"))
    part1.train_pl.train_vae(flags(tmp_path / "parts", precision="64-true", epochs=1))
    part1.train_pl.train_vae(flags(tmp_path / "parts", precision="64-true", resume="newest"))
    whole, parts = (checkpoint_of(run_of(tmp_path / name))["state_dict"] for name in ("whole", "parts"))
    assert all(weight.dtype == torch.float64 for weight in parts.values())
    assert_equal(whole, parts)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precisions(part1, tmp_path, precision):
    (result,) = part1.train_pl.train_vae(flags(tmp_path, precision=precision, importance_samples=1))
    assert 2 < result["test_bpd"] < 4.5
    assert (run_of(tmp_path) / "vae_manifold.png").exists()


@pytest.mark.parametrize(("call", "message"), [(1, "no checkpoint yet"), (2, "epoch 1 is saved: continue with ")])
def test_an_epoch_counts_as_saved_when_its_checkpoint_is(part1, tmp_path, monkeypatch, caplog, call, message):
    """The interruption comes after the row of an epoch is written and before its checkpoint is."""
    original = part1.callbacks.BestAndLast._save_topk_checkpoint
    calls = []

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        original(self, *args)

    monkeypatch.setattr(part1.callbacks.BestAndLast, "_save_topk_checkpoint", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with caplog.at_level("INFO"), pytest.raises(KeyboardInterrupt):
            part1.train_pl.train_vae(flags(tmp_path))
    finally:
        signal.signal(signal.SIGINT, handler)  # which Lightning ignores after an interruption
    assert message in caplog.text
    assert len(rows_of(run_of(tmp_path))) == call


def test_an_interruption_of_the_last_evaluation_says_how_to_go_on(part1, tmp_path, monkeypatch, caplog):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(part1.training_run, "importance_weighted_bound", interrupted)
    with caplog.at_level("INFO"), pytest.raises(KeyboardInterrupt):
        part1.train_pl.train_vae(flags(tmp_path, epochs=1, importance_samples=1))
    assert "epoch 1 is saved: continue with " in caplog.text


def test_sigterm_ends_a_training_with_its_own_exit_code(part1, tmp_path, monkeypatch, caplog):
    """In the second epoch; what Ctrl-C does, which has another exit code, is seen in a process of its own."""
    original = part1.train_pl.VAE.training_step

    def terminated(self, batch, batch_idx):
        if self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(part1.train_pl.VAE, "training_step", terminated)
    with caplog.at_level("INFO"):
        assert part1.train.main(flags(tmp_path)) == 143
    assert f"epoch 1 is saved: continue with {shlex.quote(sys.executable)} " in caplog.text


@pytest.mark.parametrize("bar", [False, True])
def test_each_epoch_says_how_long_the_rest_will_take(part1, tmp_path, caplog, capsys, bar):
    seconds = [9.0] * 5 + [3600.0, 3601.0, 1.0, 3600.0, 9999.0]
    assert str(part1.run_folder.time_left(seconds, 12)) == "2:00:00", "by the last five"
    with caplog.at_level("INFO"):
        part1.train_pl.train_vae(flags(tmp_path, progress_bar=bar))
    if bar:
        assert "left=0:00:0" in capsys.readouterr().out
    else:
        lines = [line for line in caplog.text.splitlines() if " left" in line]
        assert len(lines) == 2 and lines[1].endswith(" s, about 0:00:00 left")

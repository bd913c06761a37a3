"""A real training of part 2 through `main`, what it leaves, that it can be repeated, and that it can be resumed."""

import json
import logging
import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric.plugins.precision import Precision
from PIL import Image

from plain_figures import drawn_figures
from runs import assert_equal, not_configured_logging, rows_of

LOSSES = ("gen_loss", "recon_loss", "ae_loss", "disc_loss", "loss_real", "loss_fake", "accuracy")
DISTANCES = ("mean_error", "covariance_error", "ks_mean", "ks_max")


@pytest.fixture(autouse=True)
def _tiny_digits(part2, tiny_digits):
    with tiny_digits(part2):
        yield


def flags(log_dir: Path, **changes) -> Namespace:
    """Two steps an epoch."""
    values = {"dataset": "digits", "batch_size": 60, "z_dim": 2, "epochs": 2, "seed": 3, "lambda_": 0.9}
    return Namespace(**{**values, "log_dir": log_dir, **changes})


def checkpoint_of(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "model_checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def finished(_parts, tiny_digits, tmp_path_factory):
    """Folder and results of one finished run of two epochs."""
    log_dir = tmp_path_factory.mktemp("finished")
    with _parts["part2"].imported() as part2, tiny_digits(part2), drawn_figures():
        results = part2.train.main(flags(log_dir))
    return log_dir / "version_0", results


def test_leaves_its_files(finished):
    run, _ = finished
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    expected = {
        "hparams.json", "metrics.csv", "summary.json", "curves.png", "codes.png", "manifold.png",
        "checkpoints/model_checkpoint.pt",
        *(f"results/Prior_samples/samples_epoch_{n}.png" for n in (0, 1, 2)),
        *(f"results/Reconstruction/reconstruction_{n}.png" for n in (0, 1, 2)),
    }  # fmt: skip
    assert expected <= files
    for picture in run.rglob("*.png"):
        with Image.open(picture) as image:
            image.verify()
    with Image.open(run / "results/Prior_samples/samples_epoch_2.png") as image:
        assert image.size == (8 * 30 + 2, 8 * 30 + 2), "a grid of 8 by 8 samples"


def test_reconstructions_show_the_same_ten_digits_in_true_grey_values(part2, finished):
    run, _ = finished
    images, labels = part2.mnist.digits()[1].dataset[:]
    for epoch in (0, 1, 2):
        with Image.open(run / "results/Reconstruction" / f"reconstruction_{epoch}.png") as picture:
            assert picture.size == (10 * 30 + 2, 2 * 30 + 2), "originals above reconstructions"
            grid = torch.from_numpy(np.array(picture)[..., 0])
        for digit in range(10):
            original = images[labels == digit][0, 0]
            tile = grid[2:30, 2 + 30 * digit : 30 + 30 * digit]
            torch.testing.assert_close(tile.float() / 255, original / 2 + 0.5, atol=1 / 255, rtol=0)


def test_metrics_of_each_epoch(finished):
    run, results = finished
    rows = rows_of(run)
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "2"), ("2", "4")]
    for row in rows:
        value = {name: float(number) for name, number in row.items()}
        assert value["train_ae_loss"] == pytest.approx(
            0.9 * value["train_recon_loss"] + 0.1 * value["train_gen_loss"], rel=1e-5
        )
        assert value["train_disc_loss"] == pytest.approx(
            (value["train_loss_real"] + value["train_loss_fake"]) / 2, rel=1e-5
        )
        assert 0 <= value["train_accuracy"] <= 1
        assert all(value[f"test_{name}"] >= 0 for name in ("recon_loss", *DISTANCES))
    assert {f"train_{name}" for name in LOSSES} <= rows[0].keys()
    for name in (*(f"train_{name}" for name in LOSSES), "test_recon_loss"):
        assert float(rows[-1][name]) == results[name]


def test_summary_says_what_was_obtained_with_what(finished):
    run, results = finished
    text = (run / "summary.json").read_text()
    assert text.endswith("}\n")
    summary = json.loads(text)
    assert results.items() <= summary.items()
    assert (summary["epochs"], summary["seed"], summary["flags"]["lambda_"]) == (2, 3, 0.9)
    assert len(summary["test_ks"]) == 2
    assert summary["test_ks_max"] == pytest.approx(max(summary["test_ks"]), rel=1e-9)
    assert summary["first_epoch_below_0_05"] is None
    assert summary["train_seconds"] > 0 and summary["device"] and summary["versions"]["torch"] and summary["command"]


@pytest.mark.parametrize(("losses", "first"), [([0.2, 0.049, 0.051, 0.04], 2), ([0.2, 0.05], None)])
def test_the_first_epoch_that_reaches_the_goal(part2, tmp_path, losses, first):
    rows = [{"epoch": epoch, "train_recon_loss": loss} for epoch, loss in enumerate(losses, start=1)]
    part2.run_folder.write_summary(tmp_path, Namespace(seed=1), rows, [1.0, 2.0], {}, {})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["first_epoch_below_0_05"] == first


def test_hparams_are_the_flags(finished):
    hparams = json.loads((finished[0] / "hparams.json").read_text())
    assert (hparams["z_dim"], hparams["lambda_"], hparams["d_lr"], hparams["dataset"]) == (2, 0.9, 5e-3, "digits")


def test_tensorboard_has_the_tags(part2, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(part2.utils.TensorBoardLogger.__init__, "__defaults__", (3, None))  # steps of a window
    for epochs in (2, 3):
        part2.train.main(flags(tmp_path, epochs=epochs, resume="newest" if epochs == 3 else None))
    events = EventAccumulator(str(tmp_path / "version_0"))
    events.Reload()
    tags = events.Tags()
    expected = {f"generator/{name}" for name in LOSSES[:3]} | {f"discriminator/{name}" for name in LOSSES[3:]}
    assert expected <= set(tags["scalars"])
    for tag in expected:
        assert [event.step for event in events.Scalars(tag)] == [3, 6], "windows go on over the end of an epoch"
    assert [event.step for event in events.Scalars("test/recon_loss")] == [1, 2, 3]
    assert {"samples", "reconstructions", "manifold", "curves", "codes"} <= set(tags["images"])
    assert {event.step for event in events.Images("samples")} == {0, 1, 2, 3}
    (layout,) = events.Tensors("custom_scalars__config__")[:1]
    assert b"discriminator/loss_fake" in layout.tensor_proto.string_val[0]


def test_projector_has_the_codes_with_their_labels(finished):
    run, _ = finished
    (folder,) = run.glob("*/codes")
    assert folder.relative_to(run).as_posix() in (run / "projector_config.pbtxt").read_text()
    assert len((folder / "tensors.tsv").read_text().splitlines()) == 60
    assert set((folder / "metadata.tsv").read_text().split()) == set("0123456789")


def test_the_checkpoint_is_the_model_that_was_evaluated(part2, finished):
    run, results = finished
    model, checkpoint = part2.run_folder.load_aae(run / "checkpoints" / "model_checkpoint.pt")
    assert checkpoint["epoch"] == 2
    images, _ = part2.mnist.digits()[1].dataset[:]
    with torch.no_grad():
        loss = torch.nn.functional.mse_loss(model(images)[0], images).item()
    assert loss == pytest.approx(results["test_recon_loss"], rel=1e-5)


def test_the_optimizers_are_adam_with_beta1_one_half_and_plain_sgd(finished):
    checkpoint = checkpoint_of(finished[0])
    (adam,), (sgd,) = checkpoint["optimizer_ae"]["param_groups"], checkpoint["optimizer_disc"]["param_groups"]
    assert (adam["betas"], adam["lr"], adam["weight_decay"]) == ((0.5, 0.999), 1e-3, 0)
    assert (sgd["lr"], sgd["momentum"], sgd["weight_decay"]) == (5e-3, 0, 0)
    assert len(adam["params"]) == 24 and len(sgd["params"]) == 6, "weights and biases of 6 + 6 and 3 layers"


def test_the_course_s_flags_and_defaults(part2):
    args = part2.inputs.build_parser().parse_args([])
    course = {
        "z_dim": 8, "batch_size": 64, "lambda_": 0.995, "ae_lr": 1e-3, "d_lr": 5e-3, "data_dir": "../data/",
        "epochs": 100, "seed": 42, "log_dir": "AAE_logs/", "no_cuda": False, "num_workers": 0,
    }  # fmt: skip
    assert {name: getattr(args, name) for name in course} == course
    args = part2.inputs.with_defaults(Namespace(z_dim=5, device=torch.device("cpu")))
    assert (args.z_dim, args.d_lr, args.given) == (5, 5e-3, {"z_dim"})
    assert "device" not in args, "what is no flag does not get into the run's record"


def test_the_same_seed_gives_the_same_numbers(part2, tmp_path):
    for name in ("a", "b", "other"):
        part2.train.main(flags(tmp_path / name, epochs=1, seed=4 if name == "other" else 3))
    a, b, other = ((tmp_path / name / "version_0" / "metrics.csv").read_bytes() for name in ("a", "b", "other"))
    assert a == b
    assert a != other


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one_in_float64(part2, tmp_path):
    """They are not rounded on their way from the checkpoint."""
    part2.train.main(flags(tmp_path / "whole", precision="64-true"))
    part2.train.main(flags(tmp_path / "parts", precision="64-true", epochs=1))
    part2.train.main(flags(tmp_path / "parts", precision="64-true", resume="newest"))
    whole, parts = (checkpoint_of(tmp_path / name / "version_0")["state_dict"] for name in ("whole", "parts"))
    assert all(weight.dtype == torch.float64 for weight in parts.values())
    assert_equal(whole, parts)


@pytest.mark.parametrize(("how", "num_workers"), [("finished", 0), ("finished", 1), ("interrupted", 0)])
def test_a_resumed_run_equals_an_uninterrupted_one(part2, tmp_path, monkeypatch, how, num_workers):
    main = part2.train.main
    main(flags(tmp_path / "whole", epochs=4, num_workers=num_workers))
    if how == "finished":
        main(flags(tmp_path / "parts", epochs=2, num_workers=num_workers))
    else:
        interrupt_in_epoch_3(part2, monkeypatch, flags(tmp_path / "parts", epochs=4, num_workers=num_workers))
    main(flags(tmp_path / "parts", epochs=4, num_workers=num_workers, resume="newest"))
    whole, parts = tmp_path / "whole" / "version_0", tmp_path / "parts" / "version_0"
    for key in ("state_dict", "optimizer_ae", "optimizer_disc", "logger_ae", "logger_disc", "rows", "epoch"):
        assert_equal(checkpoint_of(whole)[key], checkpoint_of(parts)[key])
    assert (whole / "metrics.csv").read_bytes() == (parts / "metrics.csv").read_bytes()
    for picture in (whole / "results").rglob("*_4.png"):
        assert picture.read_bytes() == (parts / picture.relative_to(whole)).read_bytes()


def interrupt_in_epoch_3(part2, monkeypatch, args: Namespace) -> None:
    """Break a run off after the first step of its third epoch."""
    original = part2.models.AdversarialAE.get_loss_discriminator
    calls = []

    def interrupted(self, z_fake):
        calls.append(z_fake)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(self, z_fake)

    with monkeypatch.context() as patch:
        patch.setattr(part2.models.AdversarialAE, "get_loss_discriminator", interrupted)
        with pytest.raises(KeyboardInterrupt):
            part2.train.main(args)


@pytest.mark.parametrize(("call", "message"), [(1, "no checkpoint yet"), (2, "epoch 1 is saved: continue with ")])
def test_an_epoch_counts_as_saved_when_its_checkpoint_is(part2, tmp_path, monkeypatch, caplog, call, message):
    """The interruption comes after the row of an epoch is written and before its checkpoint is."""
    original = part2.run_folder.write_checkpoint
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        original(*args)

    monkeypatch.setattr(part2.run_folder, "write_checkpoint", interrupted)
    with caplog.at_level("INFO"), pytest.raises(KeyboardInterrupt):
        part2.train.main(flags(tmp_path))
    assert message in caplog.text
    assert len(rows_of(tmp_path / "version_0")) == call


def test_what_was_not_given_is_taken_from_the_resumed_run(part2, tmp_path):
    part2.train.main(flags(tmp_path / "deeper", epochs=1))
    assert part2.train.cli(["--log_dir", str(tmp_path), "--resume", "--epochs", "2"]) == 0
    assert [row["epoch"] for row in rows_of(tmp_path / "deeper" / "version_0")] == ["1", "2"]


def test_resuming_a_finished_run_repeats_its_evaluation_alone(part2, tmp_path, monkeypatch):
    # As a scaler of losses does, which a run that goes on in 16-mixed begins to use.
    monkeypatch.setattr(Precision, "load_state_dict", lambda self, state: pytest.fail("it takes no empty state"))
    part2.train.main(flags(tmp_path, epochs=1))
    run = tmp_path / "version_0"
    weights, metrics = checkpoint_of(run)["state_dict"], (run / "metrics.csv").read_bytes()
    (run / "summary.json").unlink()
    part2.train.main(flags(tmp_path, epochs=1, resume="version_0"))
    assert (run / "summary.json").exists()
    assert (run / "metrics.csv").read_bytes() == metrics
    assert_equal(checkpoint_of(run)["state_dict"], weights)


def test_every_run_has_its_own_directory(part2, tmp_path):
    new_run = part2.run_files.claim_run_dir
    assert [new_run(tmp_path).name for _ in range(2)] == ["version_0", "version_1"]
    (tmp_path / "version_10").mkdir()
    (tmp_path / "version_x").mkdir()
    assert new_run(tmp_path).name == "version_11"


def test_which_epochs_have_pictures(part2):
    """Before the training, after the first epoch, after every fifth, and after the last."""
    assert [epoch for epoch in range(13) if part2.train.has_pictures(epoch, last_epoch=12)] == [0, 1, 5, 10, 12]


def test_log_2_is_where_nobody_can_tell(part2):
    """The curve's line for an undecided discriminator."""
    rows = [{"epoch": 1, **{f"train_{name}": 0.5 for name in LOSSES},
             **{f"test_{name}": 0.5 for name in ("recon_loss", *DISTANCES)}}]  # fmt: skip
    figure = part2.pictures.plot_curves(rows)
    lines = [line.get_ydata()[0] for axes in figure.axes for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert lines == pytest.approx([math.log(2), 0.5])


def test_progress_is_printed_where_logging_is_not_configured(part2, tmp_path, capsys):
    with not_configured_logging(part2):
        part2.train.main(flags(tmp_path))
    out = capsys.readouterr().out
    assert [line[:10] for line in out.splitlines() if line.startswith("epoch")] == ["epoch 1/2:", "epoch 2/2:"]
    assert f"pictures and numbers are in {tmp_path / 'version_0'}" in out


def test_logging_that_is_configured_stays_as_it_is(part2):
    log = logging.getLogger("part2")
    with not_configured_logging(part2) as root:
        part2.training_run.log_to_stdout()
        assert len(log.handlers) == 1 and log.level == logging.INFO
        handler = logging.NullHandler()
        root.addHandler(handler)
        part2.training_run.log_to_stdout()
        assert root.handlers == [handler] and root.level == logging.WARNING
        assert not log.handlers and log.level == logging.NOTSET


def test_each_epoch_says_how_long_the_rest_will_take(part2, tmp_path, caplog):
    time_left = part2.run_folder.time_left
    assert str(time_left([9.0] * 5 + [3600.0, 3601.0, 1.0, 3600.0, 9999.0], 12)) == "2:00:00"  # by the last five
    with caplog.at_level("INFO"):
        part2.train.main(flags(tmp_path, epochs=2))
    lines = [line for line in caplog.text.splitlines() if " left" in line]
    assert len(lines) == 2 and lines[1].endswith(" s, about 0:00:00 left")

"""What an uninterrupted training leaves in its run directory."""

import csv
import json

import pytest

from short_runs import assert_same_run, curves_of, files_of, results_of, rows_of

# Part 1 has two epochs, part 2 two epochs of two steps, part 3 seven steps.
FILES = {
    "part1": {"hparams.yaml", "metrics.csv", "summary.json", "bpd_curve.png", "vae_manifold.png", "codes.png",
              "epoch_0_samples.png", "epoch_2_samples.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt"},
    "part2": {"hparams.json", "metrics.csv", "summary.json", "curves.png", "codes.png", "manifold.png",
              "results/Prior_samples/samples_epoch_0.png", "results/Prior_samples/samples_epoch_1.png",
              "results/Prior_samples/samples_epoch_2.png", "results/Reconstruction/reconstruction_0.png",
              "checkpoints/model_checkpoint.pt"},
    "part3": {"hparams.yaml", "metrics.csv", "summary.json", "curves.png", "texts/step_0.txt", "texts/step_4.txt",
              "texts/step_7.txt", "checkpoints/best.ckpt", "checkpoints/last.ckpt"},
}  # fmt: skip
CURVES = {  # tags and their steps: one axis, and what follows the training behind it
    "part1": {"train_bpd": [1, 2], "val_ELBO": [1, 2], "train_regularization_loss": [1, 2],
              "val_reconstruction_loss": [1, 2], "test_bpd": [3], "Samples": [0, 2], "Manifold": [3], "codes": [3]},
    "part2": {"test/recon_loss": [2, 4], "samples": [0, 2, 4], "reconstructions": [0, 2, 4], "manifold": [5],
              "generator/recon_loss": [3], "discriminator/accuracy": [3]},
    "part3": {"train_loss": [3, 6, 7], "val_loss": [3, 6, 7], "train_acc": [3, 6, 7], "learning_rate": [3, 6, 7],
              "Training texts/text_summary": [0, 4, 7], "curves": [8]},
}  # fmt: skip


def steps_of(curves: dict, tag: str) -> list[int]:
    return [point[0] if isinstance(point, tuple) else point for point in curves[tag]]


def test_files(runs):
    assert files_of(runs.whole) >= FILES[runs.part]
    assert not list(runs.whole.rglob("*.tmp"))


def test_curves_lie_on_one_axis(runs):
    curves = curves_of(runs.whole)
    assert {tag: steps_of(curves, tag) for tag in CURVES[runs.part]} == CURVES[runs.part]


def test_curves_are_the_rows_of_the_table(runs):
    tag, column = {"part1": ("val_bpd", "val_bpd"), "part2": ("test/recon_loss", "test_recon_loss"),
                   "part3": ("val_loss", "val_loss")}[runs.part]  # fmt: skip
    in_table = [float(row[column]) for row in rows_of(runs.whole)]
    assert [value for _, value in curves_of(runs.whole)[tag]] == pytest.approx(in_table)


def test_summary_says_what_was_obtained_with_what(runs):
    summary = json.loads((runs.whole / "summary.json").read_text())
    assert summary["num_devices"] == 1 and "cpu" in summary["device"] and summary["versions"]["torch"]
    assert summary["command"].startswith("python ") and "train.py" in summary["command"]
    assert summary["flags"]["seed"] == summary["seed"] == {"part1": 42, "part2": 42, "part3": 0}[runs.part]


def test_the_best_epoch_is_the_one_that_is_tested(runs_of):
    run = runs_of("part1").whole
    bpd = [float(row["val_bpd"]) for row in rows_of(run)]
    results = results_of(run)
    assert results["best_val_bpd"] == min(bpd) and results["best_epoch"] == 1 + bpd.index(min(bpd))
    assert results["test_ELBO"] == pytest.approx(
        results["test_reconstruction_loss"] + results["test_regularization_loss"], rel=1e-6
    )


def test_loader_processes_change_nothing(runs):
    assert runs.train("workers", *runs.flags, "--num_workers", 1).code == 0
    assert_same_run(runs.run("workers"), runs.whole)


def test_another_seed_gives_other_weights(runs_of):
    runs = runs_of("part1")
    assert runs.train("seed", *runs.flags, "--seed", 43, "--epochs", 1).code == 0
    with open(runs.run("seed") / "metrics.csv", newline="") as file:
        assert next(csv.DictReader(file))["train_bpd"] != rows_of(runs.whole)[0]["train_bpd"]


@pytest.mark.parametrize("part", ["part1", "part3"])
def test_16_bit_mixed_precision_comes_close(runs_of, part):
    runs = runs_of(part)
    assert runs.train("bf16", *runs.flags, "--precision", "bf16-mixed").code == 0
    column = {"part1": "train_bpd", "part3": "train_loss"}[part]
    one, other = (float(rows_of(run)[-1][column]) for run in (runs.run("bf16"), runs.whole))
    assert one == pytest.approx(other, rel=0.05) and one != other

"""`report/figures.py`: what the figures show, and that figures and text appear with the results of their runs."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import typst

from part_loader import load_script

GAPS = [{"log_px": -300.0, "elbo": -303.5, "gap": 3.5}, {"log_px": -150.0, "elbo": -150.25, "gap": 0.25}]
CODES = {"z_dim": 2, "images": 60, "seed": 0, "codes_beside_codes": 0.75, "codes_beside_codes_of_normal": 0.5,
         "draws_beside_draws": 0.5, "draw_to_code": 0.2, "draw_to_draw": 0.1, "code_to_code": 0.1,
         "dimension_of_codes": 1.5, "dimension_of_draws": 2.0, "dimension_of_images": 12.0}  # fmt: skip
LANGUAGE = {
    "prompt": "a b", "step": 3, "seed": 0,
    "attention": {
        "characters": ["a", " ", "b"], "layer": 1, "mean_distance": [[0.5, 0.5], [0.2, 0.7]],
        "weight_on_previous": [[0.1, 0.2], [0.3, 0.4]],
        "heads": [{"head": n, "weights": [[1.0, 0.0, 0.0], [0.4, 0.6, 0.0], [0.2, 0.3, 0.5]]} for n in (0, 1)],
    },
    "continuations": {"n_steps": 2, "greedy": "a b\na", "sampled": [{"temperature": 1.5, "text": "a bba"}]},
}  # fmt: skip


@pytest.fixture
def copied(repository, tmp_path):
    """The module with a copy of the report's sources and of the results of three runs."""
    report = tmp_path / "report"
    report.mkdir()
    for file in ("report.typ", "references.bib", "published.json"):
        shutil.copy(repository / "report" / file, report)
    for path in (repository / "report" / "results").iterdir():
        if path.name in ("vae_z20", "aae_z8", "gpt_shakespeare"):
            shutil.copytree(path, report / "results" / path.name)
        elif path.suffix == ".json":
            (report / "results").mkdir(exist_ok=True)
            shutil.copy(path, report / "results")
    for file in ("aae_z8/codes.json", "gpt_shakespeare/language.json"):
        (report / "results" / file).unlink(missing_ok=True)
    module = load_script(repository / "report" / "figures.py")
    module.REPORT = report
    return module


def add_all_runs(report: Path) -> None:
    """Made-up results in the place of those runs that the copy lacks."""
    results = report / "results"
    for run, like in (("vae_z2", "vae_z20"), ("ae_z8", "aae_z8"), ("ae_z2", "aae_z8"), ("aae_z2", "aae_z8"),
                      ("aae_z20", "aae_z8"), ("gpt_grimm", "gpt_shakespeare"), ("vae_z20_ema", "vae_z20")):  # fmt: skip
        shutil.copytree(results / like, results / run)
        summary = json.loads((results / run / "summary.json").read_text())
        if "z" in run:
            summary["flags"].update(z_dim=int(run.split("z")[1].split("_")[0]), ema=0.5)
        (results / run / "summary.json").write_text(json.dumps(summary))
    shutil.copy(results / "vae_z2" / "epoch_0_samples.png", results / "vae_z2" / "vae_manifold.png")
    likelihood = json.loads((results / "vae_z20" / "likelihood.json").read_text())
    (results / "vae_z2" / "likelihood.json").write_text(json.dumps({**likelihood, "z_dim": 2, "gaps": GAPS}))
    for run, spread in (("ae_z2", 7.0), ("aae_z2", 1.0)):
        rows = [f"{spread * math.cos(d):.3f},{spread * math.sin(d):.3f},{d}" for d in range(10)]
        (results / run / "codes.csv").write_text("\n".join(["z_1,z_2,label", *rows, ""]))
        (results / run / "codes.json").write_text(json.dumps({**CODES, "std": [spread, spread]}))
    for run in ("gpt_shakespeare", "gpt_grimm"):
        (results / run / "language.json").write_text(json.dumps(LANGUAGE))


def found_in(report: Path, selector: str) -> list:
    return json.loads(typst.query(report / "report.typ", selector))


def test_figures_and_text_appear_with_their_runs(copied, capsys):
    """And what has no results any more goes again."""
    assert copied.main() == 0
    drawn = ["attention_cost", "likelihood", "bpd", "aae_losses", "distances", "gpt_curves"]
    assert capsys.readouterr().out.split() == [str(copied.REPORT / "figures" / f"{name}.svg") for name in drawn]
    figures, pending = (len(found_in(copied.REPORT, what)) for what in ("figure", "<pending>"))

    add_all_runs(copied.REPORT)
    assert copied.main() == 0
    drawn = ["attention_cost", "likelihood", "bpd", "gap", "code_clouds", "aae_losses", "distances", "gpt_curves",
             "attention_gpt_shakespeare", "attention_gpt_grimm"]  # fmt: skip
    assert capsys.readouterr().out.split() == [str(copied.REPORT / "figures" / f"{name}.svg") for name in drawn]
    # Gap, manifold, 2.4's reconstructions, three for 2.6, samples and table of 2.7, and for the texts two heat maps
    # and two continuations.
    assert len(found_in(copied.REPORT, "figure")) == figures + 12
    left = [str(block) for block in found_in(copied.REPORT, "<pending>")]
    assert len(left) < pending and all("descri" in block or "what is seen" in block for block in left)
    captions = str([figure["caption"] for figure in found_in(copied.REPORT, "figure")])
    for run in ("vae_z2", "ae_z8", "ae_z2", "aae_z2", "aae_z20", "gpt_grimm"):
        assert repr(run) in captions

    shutil.rmtree(copied.REPORT / "results" / "ae_z2")
    shutil.rmtree(copied.REPORT / "results" / "aae_z2")
    assert copied.main() == 0
    assert not (copied.REPORT / "figures" / "code_clouds.svg").exists()
    assert repr("ae_z2") not in str([figure["caption"] for figure in found_in(copied.REPORT, "figure")])


def test_a_run_without_its_summary_is_not_there_yet(copied):
    add_all_runs(copied.REPORT)
    (copied.REPORT / "results" / "vae_z2" / "summary.json").unlink()
    copied.main()
    listed = json.loads((copied.REPORT / "results" / "available.json").read_text())
    assert not [path for path in listed if "vae_z2/" in path or "gap" in path]
    assert {"results/vae_z20/summary.json", "results/attention_cost.json", "figures/likelihood.svg"} <= set(listed)
    assert all((copied.REPORT / path).is_file() for path in listed)


def test_the_committed_list_names_files_that_exist(repository):
    report = repository / "report"
    listed = json.loads((report / "results" / "available.json").read_text())
    assert [path for path in listed if not (report / path).is_file()] == []


def test_panels_that_are_compared_have_equal_scales(copied):
    add_all_runs(copied.REPORT)
    left, right = copied.likelihood().axes
    assert left.get_ylim() == right.get_ylim() and left.get_xlim() == right.get_xlim()
    assert [axes.get_title() for axes in (left, right)] == ["2 latent dimensions", "20 latent dimensions"]
    panels = copied.code_clouds().axes
    for axes in panels:
        low, high = axes.get_xlim()
        assert -low == high and sorted(axes.get_ylim()) == [low, high] and axes.get_aspect() == 1
        assert [patch.radius for patch in axes.patches] == [1, 2, 3]
    assert {axes.get_xlim() for axes in panels[1:]} == {(-4, 4)} and len(panels) == 3


def test_codes_far_from_the_prior_are_shown_once_more_around_it(copied):
    """Ten digits on a ring of radius 70, of which the last is moved to the centre; the others lie around the prior."""
    add_all_runs(copied.REPORT)
    path = copied.REPORT / "results" / "ae_z2" / "codes.csv"
    rows = [f"{70 * math.cos(digit)},{70 * math.sin(digit)},{digit}" for digit in range(9)]
    path.write_text("\n".join(["z_1,z_2,label", *rows, "1.5,0.5,9"]) + "\n")
    panels = copied.code_clouds().axes
    assert [axes.get_title() for axes in panels] == ["autoencoder, all codes", "autoencoder", "adversarial autoencoder"]
    assert panels[0].get_xlim()[1] >= 70 * math.cos(0)
    assert {axes.get_xlim() for axes in panels[1:]} == {(-4, 4)}
    assert {axes.get_ylim() for axes in panels[1:]} == {(4, -4)}
    assert [len(axes.collections) for axes in panels] == [10, 1, 10]
    points = panels[0].collections[3].get_offsets()
    assert points.tolist() == [[pytest.approx(70 * math.cos(3)), pytest.approx(70 * math.sin(3))]]
    assert panels[1].collections[0].get_offsets().tolist() == [[1.5, 0.5]]
    names = [[text.get_text() for text in axes.texts] for axes in panels]
    assert names[1:] == [["9"], list("012345")], "on a ring of radius 1, 6 to 9 rad lie close to 0 to 3"
    assert names[0] == list("123456789"), "where there is room: the first is at the edge"


def test_numbers_of_digits_do_not_cover_each_other(copied):
    """The last four digits have nearly the place of the first."""
    add_all_runs(copied.REPORT)
    path = copied.REPORT / "results" / "aae_z2" / "codes.csv"
    places = [(digit - 2, 0) for digit in range(6)] + [(-1.9, 0.1 * digit) for digit in range(4)]
    path.write_text("\n".join(["z_1,z_2,label", *(f"{x},{y},{digit}" for digit, (x, y) in enumerate(places)), ""]))
    assert [text.get_text() for text in copied.code_clouds().axes[-1].texts] == list("012345")


def test_bits_per_dimension_are_those_of_the_run(copied):
    """On the right without the first quarter of the epochs; the test score as a line across both."""
    run = copied.REPORT / "results" / "vae_z20"
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for axes, first in zip(copied.bpd().axes, (0, len(rows) // 4), strict=True):
        training, validation, test = axes.lines
        assert list(training.get_xdata()) == list(range(first + 1, len(rows) + 1))
        assert list(training.get_ydata()) == [float(row["train_bpd"]) for row in rows[first:]]
        assert list(validation.get_ydata()) == [float(row["val_bpd"]) for row in rows[first:]]
        assert set(test.get_ydata()) == {json.loads((run / "summary.json").read_text())["test_bpd"]}


def test_the_gap_is_shown_in_two_ways(copied):
    """The integrated divergence as bars, and the difference of log p(x) and ELBO as points."""
    add_all_runs(copied.REPORT)
    left, right = copied.gap().axes
    assert [list(line.get_ydata()) for line in left.lines] == [[-300.0, -150.0], [-303.5, -150.25]]
    assert [bar.get_height() for bar in right.patches] == [3.5, 0.25]
    assert list(right.lines[0].get_ydata()) == [3.5, 0.25]


def test_attention_above_the_diagonal_is_left_blank(copied):
    add_all_runs(copied.REPORT)
    panels = [axes for axes in copied.attention("gpt_grimm").axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["layer 2, head 1", "layer 2, head 2"], "counted from 1"
    for axes in panels:
        shown = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
        expected = [[1, np.nan, np.nan], [0.4, 0.6, np.nan], [0.2, 0.3, 0.5]]
        np.testing.assert_array_equal(shown, np.array(expected))
        assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "␣", "b"]


def test_distances_of_draws_from_the_prior_are_those_of_draws(copied, part2):
    """The dotted lines, against part 2's own measures of 10,000 draws, averaged over eight times."""
    lines = [axes.lines[-1].get_ydata() for axes in copied.distances().axes]
    for i, dimension in enumerate((2, 8, 20)):
        draws = [part2.evaluation.distances_to_prior(torch.randn(10_000, dimension)) for _ in range(8)]
        for line, name in zip(lines, ("mean_error", "covariance_error", "ks_mean"), strict=True):
            squares = [draw[name] ** (1 if name == "ks_mean" else 2) for draw in draws]
            mean = sum(squares) / len(squares)
            assert line[i] == pytest.approx(mean if name == "ks_mean" else math.sqrt(mean), rel=0.35 / (i + 1)), name


def test_losses_are_those_of_the_runs(copied):
    add_all_runs(copied.REPORT)
    with open(copied.REPORT / "results" / "aae_z8" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    panels = {axes.get_title(): axes for axes in copied.aae_losses().axes}
    assert len(panels) == 6
    lines = {line.get_label(): line for line in panels["reconstruction, test [MSE]"].lines}
    assert list(lines) == ["autoencoder, 2", "autoencoder, 8", "adversarial, 2", "adversarial, 8", "adversarial, 20"]
    assert list(lines["adversarial, 8"].get_ydata()) == [float(row["test_recon_loss"]) for row in rows]

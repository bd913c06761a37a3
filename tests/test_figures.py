"""`report/figures.py`: what the figures show; and what the report's text takes from the results."""

import csv
import json
import math
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import typst

from part_loader import load_script

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def copied(repository, tmp_path, monkeypatch):
    """The module with a copy of the report's sources, figures and results."""
    report = tmp_path / "report"
    report.mkdir()
    for file in ("report.typ", "references.bib", "published.json"):
        shutil.copy(repository / "report" / file, report)
    for folder in ("results", "figures"):
        shutil.copytree(repository / "report" / folder, report / folder)
    monkeypatch.syspath_prepend(str(repository / "report"))  # as where it runs as a script
    module = load_script(repository / "report" / "figures.py")
    module.REPORT = report
    return module


def text_of(report: Path) -> str:
    """What the report's figures, tables, captions and paragraphs say."""

    def words(content) -> str:
        if isinstance(content, dict):
            content = [" "] if content.get("func") == "space" else [v for k, v in content.items() if k != "func"]
        return (
            content if isinstance(content, str) else "".join(map(words, content)) if isinstance(content, list) else ""
        )

    return "\n".join(map(words, json.loads(typst.query(report / "report.typ", "selector(figure).or(par)"))))


def test_all_figures_are_drawn(copied, repository, capsys):
    shutil.rmtree(copied.REPORT / "figures")
    assert copied.main() == 0
    drawn = ["attention_cost", "likelihood", "bpd", "gap", "code_clouds", "aae_losses", "distances", "gpt_curves",
             "attention", "manifold", "planes"]  # fmt: skip
    assert capsys.readouterr().out.split() == [str(copied.REPORT / "figures" / f"{name}.svg") for name in drawn]
    made = {path.name for path in (copied.REPORT / "figures").iterdir()}
    assert made == {path.name for path in (repository / "report" / "figures").iterdir()}, "and no others are committed"


def test_results_of_several_seeds_have_mean_and_range(copied):
    results = copied.REPORT / "results"
    for run, bpd in (("vae_z20", 0.5), ("vae_z20_seed1", 0.6), ("vae_z20_seed2", 0.73)):
        path = results / run / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "test_bpd": bpd}))
    assert "0.6100 (0.5000\u20130.7300)" in text_of(copied.REPORT)


def test_counts_by_eye_hold_for_the_run_that_was_counted(copied):
    """Another run of the same name has other samples."""
    assert text_of(copied.REPORT).count("clear digits") == 9
    path = copied.REPORT / "results" / "vae_z20" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "finished": "later"}))
    assert text_of(copied.REPORT).count("clear digits") == 7


def test_panels_that_are_compared_have_equal_scales(copied):
    left, right = copied.likelihood().axes
    assert left.get_ylim() == right.get_ylim() and left.get_xlim() == right.get_xlim()
    assert [axes.get_title() for axes in (left, right)] == ["run vae_z2", "run vae_z20"]
    panels = copied.code_clouds().axes
    for axes in panels:
        low, high = axes.get_xlim()
        assert -low == high and sorted(axes.get_ylim()) == [low, high] and axes.get_aspect() == 1
        assert [patch.radius for patch in axes.patches] == [1, 2, 3]
    assert {axes.get_xlim() for axes in panels[1:]} == {(-4, 4)} and len(panels) == 3


def test_codes_far_from_the_prior_are_shown_once_more_around_it(copied):
    """Ten digits on a ring of radius 70, the last one moved to the centre; the other run's on one of radius 1."""
    path = copied.REPORT / "results" / "ae_z2" / "codes.csv"
    rows = [f"{70 * math.cos(digit)},{70 * math.sin(digit)},{digit}" for digit in range(9)]
    path.write_text("\n".join(["z_1,z_2,label", *rows, "1.5,0.5,9"]) + "\n")
    around = [f"{math.cos(digit)},{math.sin(digit)},{digit}" for digit in range(10)]
    (copied.REPORT / "results" / "aae_z2" / "codes.csv").write_text("\n".join(["z_1,z_2,label", *around]) + "\n")
    panels = copied.code_clouds().axes
    assert [axes.get_title() for axes in panels] == ["run ae_z2, all codes", "run ae_z2", "run aae_z2"]
    assert panels[0].get_xlim()[1] >= 70 * math.cos(0)
    assert {axes.get_xlim() for axes in panels[1:]} == {(-4, 4)}
    assert {axes.get_ylim() for axes in panels[1:]} == {(4, -4)}
    assert [len(axes.collections) for axes in panels] == [10, 1, 10]
    points = panels[0].collections[3].get_offsets()
    assert points.tolist() == [[pytest.approx(70 * math.cos(3)), pytest.approx(70 * math.sin(3))]]
    assert panels[1].collections[0].get_offsets().tolist() == [[1.5, 0.5]]
    names = [[text.get_text() for text in axes.texts] for axes in panels]
    assert names[1:] == [["9"], list("012345")], "on a ring of radius 1, 6 to 9 rad lie close to 0 to 3"
    assert names[0] == [], "numbers stand around the prior only"
    rows += ["0,0,8"] + 9 * ["70,0,8"]  # of 11 eights, one is close to the prior: less than a tenth
    path.write_text("\n".join(["z_1,z_2,label", *rows, "1.5,0.5,9"]) + "\n")
    assert [text.get_text() for text in copied.code_clouds().axes[1].texts] == ["9"]


def test_numbers_of_digits_do_not_cover_each_other(copied):
    """The last four digits have nearly the place of the first."""
    path = copied.REPORT / "results" / "aae_z2" / "codes.csv"
    places = [(digit - 2, 0) for digit in range(6)] + [(-1.9, 0.1 * digit) for digit in range(4)]
    path.write_text("\n".join(["z_1,z_2,label", *(f"{x},{y},{digit}" for digit, (x, y) in enumerate(places)), ""]))
    assert [text.get_text() for text in copied.code_clouds().axes[-1].texts] == list("012345")


def test_bits_per_dimension_are_those_of_the_run(copied):
    """First the single steps, then the epochs, and these once more without the first quarter; the test score as a line
    across."""
    results = copied.REPORT / "results"
    with open(results / "vae_z20" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    first_steps, *panels = copied.bpd().axes
    steps = json.loads((results / "first_steps.json").read_text())["bpd"]
    assert list(first_steps.lines[0].get_ydata()) == steps and len(steps) == 100
    assert steps[0] == pytest.approx(4, abs=0.05), "16 grey values, all equally probable"
    assert float(rows[0]["train_bpd"]) < sum(steps) / 100 < 2, "the epoch goes on where these steps end"
    for axes, first in zip(panels, (0, len(rows) // 4), strict=True):
        training, validation, test = axes.lines
        assert list(training.get_xdata()) == list(range(first + 1, len(rows) + 1))
        assert list(training.get_ydata()) == [float(row["train_bpd"]) for row in rows[first:]]
        assert list(validation.get_ydata()) == [float(row["val_bpd"]) for row in rows[first:]]
        assert set(test.get_ydata()) == {json.loads((results / "vae_z20" / "summary.json").read_text())["test_bpd"]}


def test_percentiles_and_circles_of_the_prior(copied):
    """The circle of radius 1 crosses the axes at the 16th and the 84th percentile, of radius 2 at the 2nd and 98th."""
    panels = copied.manifold("ae_z2", "aae_z2").axes
    for axes in panels:
        assert axes.get_xlim() == (0, 100) and axes.get_ylim() == (100, 0), "z_2 grows downwards"
        for line, share in zip(axes.lines, (15.8655, 2.275), strict=True):
            x, y = line.get_data()
            assert (min(x), max(x), min(y), max(y)) == pytest.approx((share, 100 - share) * 2, abs=1e-3)
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert (labels[0], labels[2], labels[4]) == ("5%\n(-1.64)", "50%\n(0.00)", "95%\n(1.64)")
    (alone,) = copied.manifold("vae_z2").axes
    assert not alone.lines and alone.get_xlim() == (0, 100)


def test_the_gap_is_shown_in_two_ways(copied):
    """The integrated divergence as bars, and the difference of log p(x) and ELBO as points."""
    path = copied.REPORT / "results" / "vae_z2" / "likelihood.json"
    gaps = [{"log_px": -300.0, "elbo": -303.5, "gap": 3.5}, {"log_px": -150.0, "elbo": -150.25, "gap": 0.25}]
    path.write_text(json.dumps({**json.loads(path.read_text()), "gaps": gaps}))
    left, right = copied.gap().axes
    assert [list(line.get_ydata()) for line in left.lines] == [[-300.0, -150.0], [-303.5, -150.25]]
    assert [bar.get_height() for bar in right.patches] == [3.5, 0.25]
    assert list(right.lines[0].get_ydata()) == [3.5, 0.25]


def test_attention_above_the_diagonal_is_left_blank(copied):
    path = copied.REPORT / "results" / "gpt_shakespeare" / "language.json"
    heads = [{"head": n, "weights": [[1.0, 0.0, 0.0], [0.4, 0.6, 0.0], [0.2, 0.3, 0.5]]} for n in (0, 1)]
    path.write_text(json.dumps({"attention": {"characters": ["a", " ", "b"], "layer": 1, "heads": heads}}))
    panels = [axes for axes in copied.attention().axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["layer 2, head 1", "layer 2, head 2"], "counted from 1"
    for axes in panels:
        shown = axes.images[0].get_array()
        weights = [[1.0, None, None], [0.4, 0.6, None], [0.2, 0.3, 0.5]]
        colours = [[(1, 1, 1, 1) if w is None else matplotlib.colormaps["Blues"](w) for w in row] for row in weights]
        np.testing.assert_allclose(shown, np.array(colours), atol=1e-6)
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
    with open(copied.REPORT / "results" / "aae_z8" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    panels = {axes.get_title(): axes for axes in copied.aae_losses().axes}
    assert len(panels) == 6
    lines = {line.get_label(): line for line in panels["reconstruction, test [MSE]"].lines}
    assert list(lines) == ["ae_z8", "aae_z8"]
    generators = panels["generator's loss, aae_z8 [nats]"].lines[:-1]  # the last marks log 2
    assert [line.get_label() for line in generators] == ["aae_z8"]
    assert list(lines["aae_z8"].get_ydata()) == [float(row["test_recon_loss"]) for row in rows]

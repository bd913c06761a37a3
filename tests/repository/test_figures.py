"""`report/figures.py`: what the figures show; and what the report's text takes from the results."""

import csv
import json
import shutil
from pathlib import Path

import pytest
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
    copied.draw()
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

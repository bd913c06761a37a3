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
    drawn = ["attention_cost", "likelihood", "bpd", "gap", "code_clouds", "aae_losses", "noise", "gpt_curves",
             "attention", "manifold"]  # fmt: skip
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
    """First the single steps, then the epochs, with those of the one-cycle schedule; the test score as a line
    across."""
    results = copied.REPORT / "results"
    rows, fast = ([{name: float(value) for name, value in row.items()} for row in csv.DictReader(
        (results / run / "metrics.csv").read_text().splitlines())] for run in ("vae_z20", "vae_z20_fast"))  # fmt: skip
    left, right = copied.bpd().axes
    steps = json.loads((results / "first_steps.json").read_text())["bpd"]
    assert list(left.lines[0].get_ydata()) == steps and len(steps) == 100
    assert steps[0] == pytest.approx(4, abs=0.05), "16 grey values, all equally probable"
    assert rows[0]["train_bpd"] < sum(steps) / 100 < 2, "the epoch goes on where these steps end"
    *curves, test = right.lines
    expected = ((rows, "train_bpd"), (rows, "val_bpd"), (fast, "val_bpd"))
    for curve, (of, name) in zip(curves, expected, strict=True):
        assert list(curve.get_xdata()) == list(range(1, len(of) + 1))
        assert list(curve.get_ydata()) == [row[name] for row in of]
    assert set(test.get_ydata()) == {json.loads((results / "vae_z20" / "summary.json").read_text())["test_bpd"]}


def test_the_experiment_has_a_point_for_each_run(copied):
    """Noise across, the judge's verdict and the loss up; no point where the model is gone or has seen few epochs."""
    for folder in copied.REPORT.glob("results/*_z20*"):
        (folder / "samples.json").unlink(missing_ok=True)
    found = {"test_images": {"sure": 0.96}, "noise": 0.25, "sure": 0.5, "recon_loss": 0.02}
    runs = {"aae_z20_seed1": ("deterministic", {"noise": 0}), "aae_z20_gaussian": ("gaussian", {}),
            "vae_z20": (None, {"sure": 0.7}), "aae_z20_0.5_strong": ("deterministic", {})}  # fmt: skip
    for run, (encoder, change) in runs.items():
        flags = {"encoder": encoder, "lambda_": 0.995} if encoder else {}
        summary = {"flags": flags, "epochs": 5 if "strong" in run else 20}
        (copied.REPORT / "results" / run).mkdir(exist_ok=True)
        (copied.REPORT / "results" / run / "samples.json").write_text(json.dumps({**found, **change}))
        (copied.REPORT / "results" / run / "summary.json").write_text(json.dumps(summary))
    (copied.REPORT / "results" / "aae_z20" / "samples.json").write_text(json.dumps({"test_images": {"sure": 0.96}}))
    left, right = copied.noise().axes
    *points, ceiling = left.lines
    assert sorted((point.get_label(), *point.get_xdata(), *point.get_ydata()) for point in points) == [
        ("Gaussian, λ = 0.995", 0.25, 50), ("VAE", 0.25, 70), ("deterministic, λ = 0.995", 0, 50)
    ]  # fmt: skip
    assert set(ceiling.get_ydata()) == {96}
    assert sorted((*point.get_xdata(), *point.get_ydata()) for point in right.lines) == [
        (0, 0.02), (0.25, 0.02), (0.25, 0.02)
    ]  # fmt: skip

"""Draws the report's figures from `report/results/` into `report/figures/`: `python report/figures.py`."""

import json
from pathlib import Path

from matplotlib.figure import Figure

REPORT = Path(__file__).resolve().parent
BLUE, ORANGE = "#0072b2", "#d55e00"


def attention_cost() -> Figure:
    """Time and memory of attention against the length of the sequence."""
    rows = json.loads((REPORT / "results" / "attention_cost.json").read_text())["rows"]
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    for axes, key, label in zip(figure.subplots(1, 2), ("ms", "peak_mib"), ("time [ms]", "memory [MiB]"), strict=True):
        for way, name, colour in (("written_out", "written out", BLUE), ("fused", "fused", ORANGE)):
            points = [(row["length"], row[key]) for row in rows if row["way"] == way]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name, color=colour)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("positions")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def likelihood() -> Figure:
    """Estimates of log p(x) from samples of the prior and of the encoder."""
    result = json.loads((REPORT / "results" / "likelihood_z20.json").read_text())
    figure = Figure(figsize=(5, 2.8), layout="constrained")
    axes = figure.subplots()
    for source, colour in (("prior", BLUE), ("encoder", ORANGE)):
        found = result[source]
        axes.errorbar(found["samples"], found["mean_log_px"], yerr=found["std"], color=colour, marker="o",
                      markersize=4, capsize=3, label=f"samples from the {source}")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("samples L")
    axes.set_ylabel("estimate of log p(x) [nats]")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def main() -> int:
    folder = REPORT / "figures"
    folder.mkdir(exist_ok=True)
    for draw in (attention_cost, likelihood):
        path = folder / f"{draw.__name__}.svg"
        draw().savefig(path, metadata={"Date": None})
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

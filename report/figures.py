"""Draws the report's figures from `report/results/` into `report/figures/`, and copies the code that the report prints
beside them: `python report/figures.py`."""

import csv
import itertools
import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import NormalDist

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "part1"))
from run import Parser, run_command

if __name__ == "__main__":
    Parser("figures.py", __doc__.split("\n\n")[0]).parse_args()  # it has no flags but --help

import matplotlib
import numpy as np
from matplotlib import patheffects, ticker
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from excerpts import write_excerpts

REPORT = Path(__file__).resolve().parent
WIDTH = 6.4  # inches between the margins of a page: the figures are printed at their own size
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
STYLE = {"font.size": 9, "legend.fontsize": 8, "axes.titlesize": 9, "svg.hashsalt": "report"}
NEAR = 4  # how far from its centre the prior is looked at; report.typ counts the codes beyond it
DIGIT_COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#555555", "#bcbd22", "#17becf",
)  # fmt: skip
# Of a run of the experiment: colour and marker for its encoder, filling for its λ.
LOOKS = {"VAE": (GREEN, "D"), "deterministic": (BLUE, "o"), "Gaussian": (ORANGE, "s"), "universal": ("#cc79a7", "^")}
FILLS = {1: "top", 0.995: "full", 0.9: "left", 0.5: "none"}
PERCENTILES = (5, 25, 50, 75, 95)


def results_of(run: str, file: str = "summary.json"):
    """Content of a run's JSON or CSV file (rows of numbers)."""
    path = REPORT / "results" / run / file
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with open(path, newline="") as rows:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(rows)]


def logarithmic(axes) -> None:
    """A logarithmic y axis for what is drawn, with ticks at 1, 2 and 5 times the powers of ten, or at these alone where
    there are more than three of them, written as decimals."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1,) if high > 1000 * low else (1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def attention_cost() -> Figure:
    """Time and memory of attention against the length of the sequence (questions 3.1 and 3.2)."""
    rows = json.loads((REPORT / "results" / "attention_cost.json").read_text())["rows"]
    figure = Figure(figsize=(WIDTH, 1.5), layout="constrained")
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
    """Estimates of log p(x) from draws from the prior and from codes, on one scale for all latent spaces."""
    figure = Figure(figsize=(WIDTH, 1.4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, run in zip(panels, ("vae_z2", "vae_z20"), strict=True):
        found = results_of(run, "likelihood.json")
        for source, label, colour, marker in (("prior", "draws", BLUE, "o"), ("encoder", "codes", ORANGE, "s")):
            values = found[source]
            axes.errorbar(values["samples"], values["mean_log_px"], yerr=values["std"], color=colour, marker=marker,
                          markersize=4, capsize=3, linewidth=1, label=label)  # fmt: skip
        axes.set(xscale="log", xlabel="draws or codes, $L$", title=f"run {run}")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(r"$\log p(x)$ [nats]")
    panels[0].legend(loc="lower right")
    return figure


def bpd() -> Figure:
    """Bits per dimension of the VAE over the first steps, and over the epochs."""
    rows, summary = results_of("vae_z20", "metrics.csv"), results_of("vae_z20")
    fast = results_of("vae_z20_fast", "metrics.csv")
    steps = json.loads((REPORT / "results" / "first_steps.json").read_text())["bpd"]
    figure = Figure(figsize=(WIDTH, 2.1), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    left.plot(range(1, len(steps) + 1), steps, color=BLUE, linewidth=1)
    left.set(xlabel="step", ylabel="bits per dimension", title="first steps", ylim=(0, 4.2))
    for curve, name, label, colour in (
        (rows, "train_bpd", "training", BLUE),
        (rows, "val_bpd", "validation", ORANGE),
        (fast, "val_bpd", "validation, one-cycle", GREEN),
    ):
        right.plot([row["epoch"] for row in curve], [row[name] for row in curve], color=colour, linewidth=1,
                   label=label)  # fmt: skip
    right.axhline(summary["test_bpd"], color="black", linestyle="--", linewidth=1,
                  label=f"test: {summary['test_bpd']:.4f}")  # fmt: skip
    right.set(xlabel="epoch", title="all epochs", ylim=(0.5, 0.8))  # the first epoch would hide the rest
    right.legend(loc="upper right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def manifold() -> Figure:
    """What the decoder with two latent dimensions makes of the plane, over the percentiles of the prior."""
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axes = figure.subplots()
    picture = matplotlib.image.imread(REPORT / "results" / "vae_z2" / "vae_manifold.png")
    axes.imshow(picture, extent=(0, 100, 100, 0), interpolation="none")  # none: the file holds the picture's own pixels
    places = [f"{percent}%\n({NormalDist().inv_cdf(percent / 100):.2f})" for percent in PERCENTILES]
    axes.set_xticks(PERCENTILES, places, fontsize=7)
    axes.set_yticks(PERCENTILES, places, fontsize=7)
    axes.set(xlabel="$z_1$", ylabel="$z_2$")
    return figure


def gap() -> Figure:
    """log p(x), the ELBO, and what is between them, image by image."""
    rows = results_of("vae_z2", "likelihood.json")["gaps"]
    numbers = range(1, len(rows) + 1)
    figure = Figure(figsize=(WIDTH, 1.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(numbers, [row["log_px"] for row in rows], "o", markersize=4.5, color=BLUE, label=r"$\log p(x)$")
    left.plot(numbers, [row["elbo"] for row in rows], "x", markersize=5, color=ORANGE, label="ELBO")
    left.set_ylabel("nats")
    right.bar(numbers, [row["gap"] for row in rows], color="#bbbbbb", label=r"$D_\mathrm{KL}(q \| p(z|x))$, integrated")
    right.plot(numbers, [row["log_px"] - row["elbo"] for row in rows], "D", markersize=3.5, color="black",
               label=r"$\log p(x) -$ ELBO")  # fmt: skip
    right.set_ylabel("gap [nats]")
    # Room for the legends.
    right.set_ylim(top=2.2 * max(row["log_px"] - row["elbo"] for row in rows))
    left.set_ylim(top=left.get_ylim()[1] + 0.6 * (left.get_ylim()[1] - left.get_ylim()[0]))
    for axes in (left, right):
        axes.set_xlabel("test image")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right", ncols=2 if axes is left else 1)
    return figure


def code_clouds() -> Figure:
    """Codes of test images in the plane over the prior, on the prior's scale; where many lie far outside, a panel with
    all of them goes before."""
    runs = {run: results_of(run, "codes.csv") for run in ("ae_z2", "aae_z2")}
    panels = []  # run, title, limit
    for run, rows in runs.items():
        reach = sorted(max(abs(row["z_1"]), abs(row["z_2"])) for row in rows)
        if reach[int(0.95 * len(reach))] > NEAR:
            panels.append((run, f"run {run}, all codes", 1.05 * reach[-1]))
        panels.append((run, f"run {run} ({median_distance(rows):.2f})", NEAR))
    figure = Figure(figsize=(WIDTH, 0.5 + WIDTH / max(3, len(panels))), layout="constrained")
    widths = [1 if limit == NEAR else 0.8 for _, _, limit in panels]
    grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for axes, (run, title, limit) in zip(grid, panels, strict=True):
        draw_codes(axes, runs[run], limit)
        if limit == NEAR:
            name_digits(axes, runs[run], limit)
        axes.set(aspect="equal", xlim=(-limit, limit), ylim=(limit, -limit), title=title, xlabel="$z_1$")
    figure.axes[0].set_ylabel("$z_2$")
    marks = [Line2D([], [], linestyle="", marker="o", markersize=5, color=colour) for colour in DIGIT_COLOURS]
    figure.legend(marks, [str(digit) for digit in range(10)], ncols=10, loc="outside lower center",
                  handletextpad=0.1, columnspacing=1)  # fmt: skip
    return figure


def median_distance(rows: list[dict]) -> float:
    """From a point of the plane to the nearest code, over 20 x 20 points with equal shares of the prior."""
    axis = [NormalDist().inv_cdf((i + 0.5) / 20) for i in range(20)]
    points, codes = np.array(list(itertools.product(axis, axis))), np.array([(row["z_1"], row["z_2"]) for row in rows])
    return float(np.median(np.linalg.norm(points[:, None] - codes, axis=-1).min(axis=1)))


def draw_codes(axes, rows: list[dict], limit: float) -> None:
    """Codes with no coordinate beyond the limit, coloured by digit, and the prior's contours."""
    for digit, colour in enumerate(DIGIT_COLOURS):
        points = [(row["z_1"], row["z_2"]) for row in rows if row["label"] == digit]
        points = [point for point in points if max(map(abs, point)) <= limit]
        if points:
            axes.scatter(*zip(*points, strict=True), s=3, color=colour, linewidths=0, rasterized=True)
    for radius in (1, 2, 3):
        axes.add_patch(Circle((0, 0), radius, fill=False, color="black", linewidth=0.8, linestyle="--"))


def name_digits(axes, rows: list[dict], limit: float) -> None:
    """Each digit's number on one of its codes: where its own are many and the others few, away from the edge and from
    the numbers that already stand there; none where there is no such place, or less than a tenth of its codes."""
    outline = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    points = np.array([(row["z_1"], row["z_2"]) for row in rows])
    labels = np.array([row["label"] for row in rows])
    placed = []
    for digit in range(10):
        own = points[(labels == digit) & (np.abs(points).max(axis=1) < 0.95 * limit)]
        near = np.linalg.norm(own[:, None] - points, axis=-1) < 0.1 * limit  # (own, all)
        free = [all(math.dist(point, other) > 0.13 * limit for other in placed) for point in own]
        if any(free) and 10 * len(own) >= (labels == digit).sum():
            own_near = (near & (labels == digit)).sum(axis=1)
            place = own[np.where(free, own_near**2 / near.sum(axis=1), 0).argmax()]
            axes.annotate(str(digit), place, ha="center", va="center", weight="bold", path_effects=outline)
            placed.append(place)


def aae_losses() -> Figure:
    """The game of the autoencoders of questions 2.4 and 2.5 over the epochs."""
    colours = {"ae_z8": ORANGE, "aae_z8": BLUE}
    runs = {run: results_of(run, "metrics.csv") for run in colours}
    panels = {
        "reconstruction, training [MSE]": "train_recon_loss", "reconstruction, test [MSE]": "test_recon_loss",
        "generator's loss, aae_z8 [nats]": "train_gen_loss", "discriminator's loss [nats]": "train_disc_loss",
        "discriminator's accuracy": "train_accuracy", "codes to prior, KS distance": "test_ks_mean",
    }  # fmt: skip
    undecided = {"train_gen_loss": math.log(2), "train_disc_loss": math.log(2), "train_accuracy": 0.5}
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    grid = figure.subplots(2, 3, sharex=True)
    for axes, (title, name) in zip(grid.T.flat, panels.items(), strict=True):
        for run, rows in runs.items():
            if name == "train_gen_loss" and run.startswith("ae_"):
                continue  # takes no part in their training, and reaches 60 nats, which would hide the others
            axes.plot([row["epoch"] for row in rows], [row[name] for row in rows], color=colours[run],
                      linewidth=1, label=run)  # fmt: skip
        if name in undecided:
            axes.axhline(undecided[name], color="black", linestyle=":", linewidth=1)
        axes.set_title(title)
        axes.grid(alpha=0.3, which="both")
    for axes in grid[:, 0]:
        axes.axhline(0.05, color="black", linestyle="--", linewidth=1)
        axes.set_ylim(0.03, 0.1)  # the first epochs would hide the rest
    logarithmic(grid[1, 2])
    for axes in grid[1]:
        axes.set_xlabel("epoch")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return figure


def noise() -> Figure:
    """Share of samples that the judge is sure of, and reconstruction, against the encoder's noise (question 2.7)."""
    figure = Figure(figsize=(WIDTH, 2.1), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    runs = {path.parent.name: json.loads(path.read_text()) for path in REPORT.glob("results/*_z20*/samples.json")}
    groups = defaultdict(list)  # of runs that differ in nothing but the seed: noise, share, loss
    for run, found in sorted(runs.items()):
        summary = results_of(run)
        if "noise" in found and summary["epochs"] >= 20:  # others have lost their checkpoint, or do not learn
            flags = summary["flags"]
            encoder = flags.get("encoder", "VAE").replace("gaussian", "Gaussian")
            group = (encoder, flags.get("lambda_", 0.995), flags.get("d_lr", 0) > 0.005)
            groups[group].append((found["noise"], 100 * found["sure"], found["recon_loss"]))
    order = list(LOOKS)
    for (encoder, lambda_, fast), points in sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item)):
        label = encoder + f", λ = {lambda_:g}" * (encoder != "VAE") + ", fast" * fast
        (colour, marker), noise, *heights = LOOKS[encoder], *zip(*points, strict=True)
        for axes, values in zip(panels, heights, strict=True):
            axes.plot(noise, values, color=colour, marker="*" if fast else marker, fillstyle=FILLS[lambda_],
                      markersize=8 if fast else 5, linestyle="", label=label)  # fmt: skip
    ceiling = 100 * runs["vae_z20"]["test_images"]["sure"]
    panels[0].axhline(ceiling, color="black", linestyle=":", linewidth=1, label="test images")
    panels[0].set(ylabel="sure samples [%]", ylim=(0, 103))
    panels[1].set(ylabel="reconstruction loss", ylim=(0, 1.1 * panels[1].get_ylim()[1]))
    panels[0].set_xscale("symlog", linthresh=1e-3)
    panels[0].set_xlim(-2e-4, 0.4)
    for axes in panels:
        axes.set_xlabel("noise of the encoder")
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def gpt_curves() -> Figure:
    """Loss of the language model against the training step."""
    rows = results_of("gpt_shakespeare", "metrics.csv")
    figure = Figure(figsize=(2.6, 2.0), layout="constrained")
    axes = figure.subplots()
    for source, label, colour in (("train", "training", BLUE), ("val", "validation", ORANGE)):
        axes.plot([row["step"] for row in rows], [row[f"{source}_loss"] for row in rows], color=colour, linewidth=1.2,
                  label=label)  # fmt: skip
    axes.set(xlabel="step", ylabel="nats per character")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def attention() -> Figure:
    """Weights of three heads, rows the positions that look, columns those that are looked at."""
    found = results_of("gpt_shakespeare", "language.json")["attention"]
    names = [{" ": "␣", "\n": "⏎"}.get(character, character) for character in found["characters"]]
    figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
    panels = figure.subplots(1, len(found["heads"]), sharey=True, squeeze=False)[0]
    colours = ScalarMappable(Normalize(0, 1), "Blues")
    for axes, head in zip(panels, found["heads"], strict=True):
        pixels = colours.to_rgba(np.array(head["weights"]))
        pixels[np.triu_indices(len(names), k=1)] = 1  # white: what no position can see
        axes.imshow(pixels, interpolation="nearest")
        axes.set_xticks(range(len(names)), names, fontsize=6.5, family="monospace")
        axes.set_yticks(range(len(names)), names, fontsize=5.5, family="monospace")
        axes.tick_params(length=0, pad=1.5)
        axes.set(title=f"layer {found['layer'] + 1}, head {head['head'] + 1}", xlabel="key")
    panels[0].set_ylabel("query")
    figure.colorbar(colours, ax=panels, label="weight", shrink=0.8)
    return figure


def draw(args=None) -> None:
    """Draw all figures, and print the paths of their files."""
    folder = REPORT / "figures"
    folder.mkdir(exist_ok=True)
    drawings = (attention_cost, likelihood, bpd, gap, code_clouds, aae_losses, noise, gpt_curves, attention, manifold)
    with matplotlib.rc_context(STYLE):
        for function in drawings:
            path = folder / f"{function.__name__}.svg"
            function().savefig(path, dpi=250, metadata={"Date": None})
            print(path)
    write_excerpts(folder)


if __name__ == "__main__":
    raise SystemExit(run_command(draw, None))

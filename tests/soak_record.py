"""Figures of the slow tests, in report/results/soak.json.

A test that passes under `make soak` leaves what it has survived there: `soak(kills_survived=1)`. Each test has its own
entry in `tests`, so that some of them can be repeated alone; above are the totals of all entries.
"""

import datetime
import json
import os
import platform
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).resolve().parents[1] / "report" / "results" / "soak.json"
SEED = int(os.environ.get("SOAK_SEED", "18"))  # of the random moments, places and values


@pytest.fixture
def soak(request):
    """Function that counts what a slow test survives; in other tests, it does nothing."""
    counts, start = Counter(), time.perf_counter()
    yield lambda **added: counts.update(added)
    slow = request.node.get_closest_marker("slow") is not None
    if slow and counts and getattr(request.node, "passed", False):
        seconds = round(time.perf_counter() - start, 1)
        record(request.node.nodeid.split("tests/")[-1], {**counts, "seconds": seconds, "seed": SEED})


def record(test: str, figures: dict) -> None:
    """Write the figures of a test into the file, and the totals anew."""
    content = json.loads(FILE.read_text()) if FILE.is_file() else {}
    tests = {**content.get("tests", {}), test: figures}
    totals = Counter()
    for entry in tests.values():
        totals.update({name: value for name, value in entry.items() if name != "seed"})
    totals["seconds"] = round(totals["seconds"])
    content = {
        **dict(sorted(totals.items())),
        "seed": SEED,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tests": dict(sorted(tests.items())),
    }
    FILE.write_text(json.dumps(content, indent=2) + "\n")

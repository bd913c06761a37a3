"""Points of the coding questions, divided among the criteria. What no test can see (figures, text) is "by hand"."""

import importlib

BY_HAND = "by hand"

# The assignment's points of every question; those that are not in POINTS are written ones.
QUESTIONS = {}

POINTS: dict[str, dict[str, float]] = {}
for number in (1, 2, 3):
    try:
        table = importlib.import_module(f"course.points_part{number}")
    except ModuleNotFoundError:
        continue
    POINTS.update(getattr(table, f"POINTS_PART{number}"))

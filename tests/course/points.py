"""Points of every question, and of the coding questions how they are divided among the criteria.

Each part's table is in `points_part1.py` and so on: `POINTS_PART1 = {"1.7": {"kl_value": 1.5, ..., BY_HAND: 2}}`. What
no test can see in a coding question (figures, text) is "by hand". A criterion without points is for remarks.
"""

import importlib

BY_HAND = "by hand"

# The assignment's points of every question. Those without criteria are written ones, marked by hand.
QUESTIONS: dict[str, float] = {
    "1.1": 2, "1.2": 3, "1.3": 2, "1.4": 3, "1.5": 2, "1.6": 3, "1.7": 12, "1.8": 3, "1.9": 4,
    "2.1": 3, "2.2": 2, "2.3": 2, "2.4": 3, "2.5": 6, "2.6": 4, "2.7": 2,
    "3.1": 3, "3.2": 4, "3.3": 3,
}  # fmt: skip


def load_points() -> dict[str, dict[str, float]]:
    """The tables of the three parts as one: weights of the criteria by question."""
    points: dict[str, dict[str, float]] = {}
    for number in (1, 2, 3):
        name = f"course.points_part{number}"
        try:
            points.update(getattr(importlib.import_module(name), f"POINTS_PART{number}"))
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    return points


POINTS = load_points()

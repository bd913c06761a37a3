"""Events in TensorBoard's files: there at once, and purged on the axis of each tag."""

import time
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from runs import event_files_of, points_of


@pytest.fixture
def events(part2):
    return part2.event_files


def steps_of(run: Path) -> dict[str, list[int]]:
    return {tag: [step for step, _ in points] for tag, points in points_of(run).items()}


def test_events_are_in_the_file_at_once(events, tmp_path):
    writer = events.EventWriter(tmp_path)
    writer.add_scalar("a", 1.5, 3)
    writer.add_text("t", "words", 4)
    assert steps_of(tmp_path) == {"a": [3], "t/text_summary": [4]}
    writer.close()
    writer.add_scalar("a", 2.5, 5)
    assert steps_of(tmp_path)["a"] == [3, 5]
    assert len(list(tmp_path.iterdir())) == 2


def test_events_are_purged_on_the_axis_of_each_tag(events, tmp_path):
    """Steps of scalars, images, texts and figures, in two files, of which one ends in the middle of an event."""
    for first in (1, 4):
        with events.EventWriter(tmp_path) as writer:
            for n in range(first, first + 3):
                writer.add_scalar("by_step", n / 2, 10 * n)
                writer.add_scalars("group", {"x": n}, n) if n == 1 else None
                writer.add_image("picture", torch.full((1, 4, 4), n / 9), n)
                writer.add_text("text", f"word {n}", n)
                writer.add_figure("figure", Figure(), n)
        time.sleep(0.01)
    last = event_files_of(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:-5])
    before = points_of(tmp_path)
    untouched = event_files_of(tmp_path)[0].stat()
    events.purge_events(tmp_path, lambda tag, step: step <= (40 if tag == "by_step" else 4))
    after = points_of(tmp_path)
    assert {tag: [step for step, _ in points] for tag, points in after.items()} == {
        "by_step": [10, 20, 30, 40], "picture": [1, 2, 3, 4], "text/text_summary": [1, 2, 3, 4], "figure": [1, 2, 3, 4]
    }  # fmt: skip
    for tag, points in after.items():
        assert points == before[tag][: len(points)], "what stays is as it was"
    first = event_files_of(tmp_path)[0].stat()
    assert (first.st_ino, first.st_mtime_ns) == (untouched.st_ino, untouched.st_mtime_ns), "nothing to delete there"
    assert len(list(tmp_path.glob("events*"))) == 2

"""The report: that it can be set, and that it has every question with its points and keeps to the limits."""

import re

import pytest
import typst

from part_loader import load_script

pytestmark = pytest.mark.usefixtures("no_network")

POINTS = {
    "1.1": 2, "1.2": 3, "1.3": 2, "1.4": 3, "1.5": 2, "1.6": 3, "1.7": 12, "1.8": 3, "1.9": 4,
    "2.1": 3, "2.2": 2, "2.3": 2, "2.4": 3, "2.5": 6, "2.6": 4, "2.7": 2, "3.1": 3, "3.2": 4, "3.3": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def source(repository) -> str:
    return (repository / "report" / "report.typ").read_text()


def test_every_question_with_its_points(source):
    assert sum(POINTS.values()) == 66
    found = re.findall(r'^#question\("([\d.]+)", (\d+)\)', source, re.MULTILINE)
    assert {number: int(points) for number, points in found} == POINTS
    assert len(found) == 19


def test_it_can_be_set_and_is_the_committed_one(repository, tmp_path):
    """Pages are compared by their number; a PDF also holds the time at which it was set."""
    typst.compile(repository / "report" / "report.typ", output=tmp_path / "report.pdf")

    def pages(path) -> int:
        return len(re.findall(rb"/Type\s*/Page\b", path.read_bytes()))

    assert pages(tmp_path / "report.pdf") == pages(repository / "report" / "report.pdf") > 0


def test_the_code_in_the_report_is_that_of_the_parts(repository, tmp_path):
    excerpts = load_script(repository / "report" / "excerpts.py")
    excerpts.write_excerpts(tmp_path)
    for name in excerpts.EXCERPTS:
        committed = (repository / "report" / "figures" / f"{name}.txt").read_text()
        assert (tmp_path / f"{name}.txt").read_text() == committed, "set the report anew: make report"

"""The report: that it can be set, and that it has every question with its points and keeps to the limits."""

import re

import pytest
import typst

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
    assert source.count("#thought[") == 3


def test_question_3_1_keeps_to_200_words(source):
    answer = source.split('#question("3.1", 3)')[1].split("#question")[0].split("#figure")[0]
    answer = re.sub(r"//.*|\[Long input sequences\]|@\w+", "", answer)
    words = re.findall(r"[A-Za-z][\w'-]*", re.sub(r"\$[^$]*\$", "formula", answer))
    assert 100 < len(words) <= 200


def test_it_can_be_set_and_is_the_committed_one(repository, tmp_path):
    """Pages are compared by their number; a PDF also holds the time at which it was set."""
    typst.compile(repository / "report" / "report.typ", output=tmp_path / "report.pdf")

    def pages(path) -> int:
        return len(re.findall(rb"/Type\s*/Page\b", path.read_bytes()))

    assert pages(tmp_path / "report.pdf") == pages(repository / "report" / "report.pdf") > 0

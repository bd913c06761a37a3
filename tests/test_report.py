"""The report: that it can be set, and that it has every question with its points and keeps to the limits."""

import json
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
    assert source.count("#thought[") == 3


def test_question_3_1_keeps_to_200_words(source):
    answer = source.split('#question("3.1", 3)')[1].split("#question")[0].split("#figure")[0]
    answer = re.sub(r"//.*|\[Long input sequences\]|@[\w-]+", "", answer)
    words = re.findall(r"[A-Za-z][\w'-]*", re.sub(r"\$[^$]*\$", "formula", answer))
    assert 100 < len(words) <= 200


def test_it_can_be_set_and_is_the_committed_one(repository, tmp_path):
    """Pages are compared by their number; a PDF also holds the time at which it was set."""
    typst.compile(repository / "report" / "report.typ", output=tmp_path / "report.pdf")

    def pages(path) -> int:
        return len(re.findall(rb"/Type\s*/Page\b", path.read_bytes()))

    assert pages(tmp_path / "report.pdf") == pages(repository / "report" / "report.pdf") > 0


def test_the_table_of_published_runs_is_the_file(repository, source):
    """Each of its runs is compared with one of ours, and has an address that can be looked up."""
    runs = json.loads((repository / "report" / "published.json").read_text())["runs"]
    assert {run["like"] for run in runs} == {"vae_z20", "vae_z2", "ae_z8", "aae_z8", "ae_z2", "aae_z2"}
    for run in runs:
        assert ("bpd" in run) != ("mse" in run)
        assert re.fullmatch(r"[\w-]+/[\w-]+", run["repository"]) and run["file"].startswith("assignment3/")
    assert not re.search(r"github\.com/\w", source), "addresses stand in the file alone"


def test_counts_by_eye_are_of_the_runs_that_are_there(repository):
    results = repository / "report" / "results"
    counts = json.loads((results / "counted.json").read_text())
    counts.pop("about")
    for run, count in counts.items():
        assert json.loads((results / run / "summary.json").read_text())["finished"] == count["finished"]
        assert all(0 < clear < 64 for clear in count["clear"].values())


SOURCE = '''
class Attention:
    def look(self, x, *, dropout=0.0):
        """Explained."""
        if dropout < 0:
            raise ValueError("no")
        # short
        y = x + 1  # (B, T)

        return y  # LONG
'''


def test_code_is_found_by_the_name_of_its_function(repository):
    """Without docstring, checks, empty lines and comments that are too long to print."""
    excerpts = load_script(repository / "report" / "excerpts.py")
    source = SOURCE.replace("LONG", "x" * 200)
    expected = "def look(self, x):\n    # short\n    y = x + 1  # (B, T)\n    return y\n"
    assert excerpts.excerpt(source, "Attention.look") == expected
    with pytest.raises(LookupError, match=r"there is no Attention\.see any more"):
        excerpts.excerpt(source, "Attention.see")


def test_the_code_in_the_report_is_that_of_the_parts(repository, tmp_path):
    excerpts = load_script(repository / "report" / "excerpts.py")
    excerpts.write_excerpts(tmp_path)
    for name in excerpts.EXCERPTS:
        committed = (repository / "report" / "figures" / f"{name}.txt").read_text()
        assert (tmp_path / f"{name}.txt").read_text() == committed, "set the report anew: make report"

"""The mutants can be applied, and their runner says which criterion caught which. `make mutants` grades them."""

import sys

import pytest

from course.criterion import REGISTRY
from course.judge import load_criteria
from part_loader import load_script


@pytest.fixture(scope="module")
def runner(request):
    path = list(sys.path)
    try:
        yield load_script(request.path.parents[1] / "mutants" / "run.py")
    finally:
        sys.path[:] = path


def test_all_apply_to_their_bases(runner):
    """Where this fails after a change of a part, the texts in tests/mutants/ must follow it."""
    load_criteria()
    runner.check_names(runner.MUTANTS, REGISTRY)
    problems = []
    for mutant in runner.MUTANTS:
        for base, edits in mutant.edits.items():
            assert edits, f"{mutant.name} changes nothing"
            try:
                runner.changed_files(mutant, base, REGISTRY[mutant.criterion].part)
            except runner.NotApplicable as problem:
                problems.append(str(problem))
    assert not problems, "\n".join(problems)


def test_the_changed_text_is_in_the_copy_alone(runner, repository, tmp_path):
    mutant = runner.Mutant("m", "c", {"ours": [("utils.py", "def KLD(", "def DLK(")]})
    folder = runner.mutated(mutant, "ours", "part1", tmp_path)
    assert "def DLK(" in (folder / "utils.py").read_text()
    assert "def DLK(" not in (repository / "part1" / "utils.py").read_text()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("utils.py", "no such text", ""), "0 times, not once: 'no such text'"),
        (("utils.py", "import", ""), "times, not once"),
        (("absent.py", "x", ""), "no file part1/absent.py"),
    ],
)
def test_a_text_that_is_not_there_once_is_an_error(runner, tmp_path, edit, said):
    with pytest.raises(runner.NotApplicable, match=said):
        runner.mutated(runner.Mutant("m", "c", {"ours": [edit]}), "ours", "part1", tmp_path)


def test_names(runner):
    one = runner.Mutant("one", "known", {"ours": []})
    with pytest.raises(runner.NotApplicable, match="no criterion unknown"):
        runner.check_names([runner.Mutant("one", "unknown", {"ours": []})], {"known": None})
    with pytest.raises(runner.NotApplicable, match="two mutants are called one"):
        runner.check_names([one, one], {"known": None})
    with pytest.raises(runner.NotApplicable, match="bases"):
        runner.check_names([runner.Mutant("one", "known", {"theirs": []})], {"known": None})


@pytest.mark.parametrize(
    ("criterion", "caught_by", "ok", "said"),
    [
        ("kl", ["kl"], True, "kl"),
        ("kl", [], False, "MISSED by kl"),
        ("kl", ["kl", "bpd"], False, "meant for kl, CAUGHT BY kl, bpd"),
        ("kl", ["bpd"], False, "meant for kl, CAUGHT BY bpd"),
        ("", ["bpd"], False, "ACCUSED by bpd"),
    ],
)
def test_the_verdict(runner, criterion, caught_by, ok, said):
    outcome = runner.Outcome("mutant", "ours", criterion, caught_by, "")
    assert outcome.ok is ok
    assert runner.verdict(outcome).endswith(said)

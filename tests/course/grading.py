"""Runs all criteria on solutions and adds up their points."""

import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from course.criterion import Criterion
from course.points import BY_HAND, NEEDS, POINTS, QUESTIONS
from course.sandbox import Ended, Job, Limits, run_jobs
from course.submission import PARTS, Submission, copied

PARTS_OF_EDITION = {"2021": PARTS[:1], "2022": PARTS[:2], "2023": PARTS, "2024": (PARTS[0], PARTS[2])}
CODING = ("1.7", "1.8", "1.9", "2.4", "2.5", "2.6", "3.2", "3.3")


@dataclass
class Finding:
    """What one criterion found.

    `status` is 'passed', 'remark' (passed, with something to say), 'failed', 'unjudged' (no points, since nothing
    happened that could be judged; what is wrong, another criterion says) or 'missing' (its part is not there).
    `unexpected` says that the code broke off where the criterion had no words of its own for it, `empty` that nothing
    was there to be judged.
    """

    name: str
    title: str
    points: float
    status: str
    hint: str = ""
    given: str | None = None
    expected: str | None = None
    got: str | None = None
    unexpected: bool = False
    empty: bool = False
    seconds: float = 0.0

    @property
    def reason(self) -> str:
        """The hint and the values as one paragraph."""
        return "; ".join([self.hint, *(f"{key}: {value}" for key, value in self.values)])

    @property
    def values(self) -> list[tuple[str, str]]:
        """Those of given, expected and got that the criterion tells."""
        named = (("given", self.given), ("expected", self.expected), ("got", self.got))
        return [(key, value) for key, value in named if value is not None]


@dataclass
class QuestionResult:
    """A question's points: the assignment's, those that tests can give, and those to be given by hand."""

    number: str
    points: float
    by_hand: float
    findings: list[Finding] = field(default_factory=list)

    @property
    def reachable(self) -> float:
        return sum(finding.points for finding in self.findings)

    @property
    def reached(self) -> float:
        return sum(finding.points for finding in self.findings if finding.status in ("passed", "remark"))

    @property
    def reasons(self) -> dict[str, list[Finding]]:
        """The failures and then the remarks by what they say: one cause often fails several criteria."""
        found: dict[str, list[Finding]] = {}
        for status in ("failed", "remark"):
            for finding in self.findings:
                if finding.status == status:
                    found.setdefault(finding.reason, []).append(finding)
        return found

    @property
    def first_reason(self) -> str:
        """The first of the reasons, and how many others there are."""
        reasons = list(self.reasons.values())
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return f"{reasons[0][0].hint}{more}" if reasons else ""


@dataclass
class SolutionResult:
    """Results of one solution; `missing` says of each part that is not there why it has no results."""

    submission: Submission
    questions: dict[str, QuestionResult]
    missing: dict[str, str]

    @property
    def reachable(self) -> float:
        return sum(question.reachable for question in self.questions.values())

    @property
    def reached(self) -> float:
        return sum(question.reached for question in self.questions.values())


def grade(
    submissions: list[Submission],
    criteria: dict[str, Criterion],
    at_once: int = 1,
    limits: Limits | None = None,
    verbose: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Iterator[SolutionResult]:
    """Run the criteria on the solutions, `at_once` side by side, and yield the results of each as soon as it and those
    before it are done."""
    ended: dict[tuple[int, str], Ended] = {}
    keys = [[(index, one.name) for one in criteria.values() if one.part in submission.parts]
            for index, submission in enumerate(submissions)]  # fmt: skip
    scratch = Path(tempfile.mkdtemp(prefix="grade-"))
    done = 0

    def complete() -> Iterator[SolutionResult]:
        nonlocal done
        while done < len(keys) and all(key in ended for key in keys[done]):
            yield added_up(done, submissions[done], criteria, ended)
            done += 1

    try:
        progress(0, sum(map(len, keys)))
        for job, end in run_jobs(
            _jobs(submissions, criteria, scratch, verbose), at_once, limits or Limits(), not verbose
        ):
            ended[job.key] = end
            shutil.rmtree(_folder(scratch, *job.key), ignore_errors=True)
            progress(len(ended), sum(map(len, keys)))
            yield from complete()
        yield from complete()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _folder(scratch: Path, index: int, name: str) -> Path:
    return scratch / f"{index}-{name}"


def _jobs(submissions: list[Submission], criteria: dict[str, Criterion], scratch: Path, verbose: bool) -> Iterator[Job]:
    for index, submission in enumerate(submissions):
        for part, folder in submission.parts.items():
            original = copied(folder, scratch / f"{index}-{part}" / folder.name)
            for criterion in criteria.values():
                if criterion.part == part:
                    place = _folder(scratch, index, criterion.name)
                    yield Job((index, criterion.name), _runner(criterion, submission, original, place, verbose))


def _runner(criterion: Criterion, submission: Submission, original: Path, place: Path, verbose: bool) -> Callable:
    def run(notify: Callable[[str], None]) -> dict:
        judge = importlib.import_module("course.judge")  # imports PyTorch, which this module's readers need not
        folder = place / original.name
        shutil.copytree(original, folder)
        tempfile.tempdir = os.environ["TMPDIR"] = str(place)
        return judge.judge(criterion.name, folder, criterion.part, submission.edition, notify, verbose)

    return run


def added_up(index: int, submission: Submission, criteria: dict[str, Criterion], ended: dict) -> SolutionResult:
    """The results of a solution from how its jobs ended, by (index, name of the criterion)."""
    expected = PARTS_OF_EDITION[submission.edition]
    questions: dict[str, QuestionResult] = {}
    missing: dict[str, str] = {}
    for part in PARTS:
        if part not in submission.parts:
            missing[part] = "not found" if part in expected else f"not in the edition of {submission.edition}"
    for number in CODING:
        part = f"part{number[0]}"
        if part in missing and part not in expected:
            continue
        weights = POINTS.get(number, {})
        questions[number] = QuestionResult(number, QUESTIONS[number], weights.get(BY_HAND, 0))
        for criterion in criteria.values():
            if criterion.question == number:
                finding = Finding(criterion.name, criterion.title, weights.get(criterion.name, 0), "failed")
                questions[number].findings.append(_filled(finding, ended.get((index, criterion.name)), part))
    findings = {finding.name: finding for question in questions.values() for finding in question.findings}
    for name, others in NEEDS.items():
        empty = [findings[other].title for other in others if other in findings and findings[other].empty]
        if empty and name in findings and findings[name].status in ("passed", "remark"):
            findings[name].status, findings[name].hint = "unjudged", f"counts once this holds: {empty[0]}"
    return SolutionResult(submission, questions, missing)


def _filled(finding: Finding, end: Ended | None, part: str) -> Finding:
    if end is None:
        finding.status, finding.hint = "missing", f"{part} was not found"
        return finding
    finding.seconds = round(end.seconds, 2)
    if end.result is None:
        finding.hint, finding.unexpected, finding.empty = end.why, True, True
    else:
        vars(finding).update(end.result)
    return finding

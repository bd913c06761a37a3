"""Proves that the criteria find mistakes: python tests/mutants/run.py

Applies each mutant of part1.py, part2.py and part3.py to a copy of a right solution (the template-shaped ones in
solutions/, and this repository's) and grades the part concerned. Each must be caught by the criterion meant for it,
alone. The exit code is 1 where one is missed or another criterion fails too, 2 where a mutant cannot be applied.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
BASES = {
    "template": HERE / "solutions" / "template_2023",
    "template_2024": HERE / "solutions" / "template_2024",
    "ours": TESTS.parent,
}
sys.dont_write_bytecode = True
sys.path[:] = [path for path in sys.path if Path(path).resolve() not in (HERE, TESTS)]
sys.path[:0] = [str(HERE), str(TESTS)]
from course import grading, judge  # noqa: E402
from course.sandbox import Ended, Job, Limits, run_jobs  # noqa: E402
from course.submission import PARTS, Submission, copied, find, recognised_edition  # noqa: E402
from mutant import Mutant  # noqa: E402
from one_process import judge_all  # noqa: E402

MUTANTS: list[Mutant] = [
    mutant
    for name in ("part1", "part2", "part3")
    if (HERE / f"{name}.py").is_file()
    for mutant in importlib.import_module(name).MUTANTS
]
for name in ("part1", "part2", "part3"):
    sys.modules.pop(name, None)
sys.path[:] = sys.path[2:]  # no module of the suite may stand in the way of a solution's


class NotApplicable(Exception):
    """A mutant names a criterion, file or text that is not there."""


@dataclass
class Outcome:
    """What happened to one mutant on one base: `caught_by` names the criteria that failed, or made a remark where the
    one that is meant makes remarks."""

    name: str
    base: str
    criterion: str
    caught_by: list[str]
    reason: str

    @property
    def ok(self) -> bool:
        return self.caught_by == ([self.criterion] if self.criterion else [])


def changed_files(mutant: Mutant, base: str, part: str) -> dict[str, str]:
    """The new texts of the files of the base's part that the mutant changes. Raises NotApplicable."""
    texts: dict[str, str] = {}
    for file, old, new in mutant.edits[base]:
        path = BASES[base] / part / file
        if file not in texts and not path.is_file():
            raise NotApplicable(f"{mutant.name}: {base} has no file {part}/{file}")
        text = texts.get(file) or path.read_text()
        if text.count(old) != 1:
            raise NotApplicable(
                f"{mutant.name}: {part}/{file} of {base} has this {text.count(old)} times, not once: {old!r}"
            )
        texts[file] = text.replace(old, new)
    return texts


def mutated(mutant: Mutant, base: str, part: str, target: Path) -> Path:
    """A copy of the base's part with the mutant's changes. Raises NotApplicable."""
    texts = changed_files(mutant, base, part)
    folder = copied(BASES[base] / part, target / part)
    for file, text in texts.items():
        (folder / file).write_text(text)
    return folder


def check_names(mutants: list[Mutant], criteria: dict) -> None:
    """Raise NotApplicable for a criterion or a base that does not exist, and for a name that is taken."""
    for mutant in mutants:
        if mutant.criterion not in criteria:
            raise NotApplicable(f"{mutant.name}: there is no criterion {mutant.criterion}")
        if not mutant.edits or set(mutant.edits) - set(BASES):
            raise NotApplicable(f"{mutant.name}: its bases must be among {', '.join(BASES)}")
    names = [mutant.name for mutant in mutants]
    for name in names:
        if names.count(name) > 1:
            raise NotApplicable(f"two mutants are called {name}")


@dataclass
class Planned:
    """A solution of one part that is to be graded."""

    mutant: Mutant
    base: str
    part: str
    submission: Submission


def run(mutants: list[Mutant], bases: list[str], criteria: dict, jobs: int, timeout: float, progress) -> list[Outcome]:
    """Grade the right solutions as they are, and then every mutant on every base that it is made for.

    All criteria of a mutant run in one process. Where that ends early, or finds something else than the criterion that
    is meant, the grader's own way, a process for each criterion, has the last word.
    """
    check_names(mutants, criteria)
    outcomes: dict[int, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        parts = {criteria[mutant.criterion].part for mutant in mutants}
        planned = [*_right_solutions(parts, Path(scratch)), *_mutated(mutants, bases, criteria, Path(scratch))]
        work = [Job(i, _all_criteria(one.submission, _of_part(criteria, one.part))) for i, one in enumerate(planned)]
        for job, end in run_jobs(work, jobs, Limits(2 * timeout)):
            one = planned[job.key]
            ended = {(0, name): Ended(result) for name, result in (end.result or {}).items()}
            result = grading.added_up(0, one.submission, _of_part(criteria, one.part), ended)
            outcome = _outcome(one.mutant, one.base, result)
            if len(ended) == len(_of_part(criteria, one.part)) and outcome.ok:
                outcomes[job.key] = outcome
                progress(len(outcomes), len(planned))
        for index in [index for index in range(len(planned)) if index not in outcomes]:
            one = planned[index]
            (result,) = grading.grade([one.submission], _of_part(criteria, one.part), jobs, Limits(timeout))
            outcomes[index] = _outcome(one.mutant, one.base, result)
            progress(len(outcomes), len(planned))
    return [outcomes[index] for index in range(len(planned))]


def _right_solutions(parts: set[str], scratch: Path) -> Iterator[Planned]:
    for folder in [BASES["ours"], *sorted((HERE / "solutions").iterdir())]:
        whole = find(folder)
        for part in sorted(parts & set(whole.parts)):
            place = copied(whole.parts[part], scratch / f"right-{folder.name}" / part)
            submission = Submission(folder.name, place.parent, whole.edition, {part: place})
            name = "ours" if folder == BASES["ours"] else folder.name
            yield Planned(Mutant(f"(unchanged {part})", ""), name, part, submission)


def _mutated(mutants: list[Mutant], bases: list[str], criteria: dict, scratch: Path) -> Iterator[Planned]:
    for mutant in mutants:
        part = criteria[mutant.criterion].part
        for base in bases:
            if base in mutant.edits:
                folder = mutated(mutant, base, part, scratch / f"{mutant.name}-{base}")
                edition = recognised_edition({part: folder})
                submission = Submission(f"{mutant.name} on {base}", folder.parent, edition, {part: folder})
                yield Planned(mutant, base, part, submission)


def _of_part(criteria: dict, part: str) -> dict:
    return {name: one for name, one in criteria.items() if one.part == part}


def _all_criteria(submission: Submission, criteria: dict) -> Callable:
    ((part, folder),) = submission.parts.items()
    return lambda notify: judge_all(list(criteria), folder, part, submission.edition, notify)


def _outcome(mutant: Mutant, base: str, result: grading.SolutionResult) -> Outcome:
    findings = [finding for question in result.questions.values() for finding in question.findings]
    caught = [
        finding
        for finding in findings
        if finding.status == "failed" or (finding.status == "remark" and finding.name == mutant.criterion)
    ]
    return Outcome(
        mutant.name, base, mutant.criterion, [one.name for one in caught], caught[0].reason if caught else ""
    )


def counted(outcomes: list[Outcome], criteria: dict) -> dict:
    """How many mistakes were planted and caught by the criterion meant, alone: in all, by part and by base; and how
    many of the right solutions get full marks."""
    tried = [outcome for outcome in outcomes if outcome.criterion]

    def count(some: list[Outcome]) -> dict:
        return {
            "names": len({outcome.name for outcome in some}),
            "planted": len(some),
            "caught": sum(outcome.ok for outcome in some),
        }

    counts = {"mistakes": count(tried)}
    for part in PARTS:
        here = [outcome for outcome in tried if criteria[outcome.criterion].part == part]
        counts[part] = count(here) | {base: count([one for one in here if one.base == base]) for base in BASES}
    unchanged = [outcome for outcome in outcomes if not outcome.criterion]
    names = {outcome.base for outcome in unchanged}
    accused = {outcome.base for outcome in unchanged if not outcome.ok}
    counts["solutions"] = {"graded": len(names), "full_marks": len(names - accused)}
    return counts


def verdict(outcome: Outcome) -> str:
    """One line about an outcome."""
    if not outcome.criterion:
        said = "full marks" if not outcome.caught_by else "ACCUSED by " + ", ".join(outcome.caught_by)
    elif outcome.ok:
        said = outcome.criterion
    elif not outcome.caught_by:
        said = f"MISSED by {outcome.criterion}"
    else:
        said = f"meant for {outcome.criterion}, CAUGHT BY {', '.join(outcome.caught_by)}"
    return f"  {outcome.name:<44} {outcome.base:<24} {said}"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", metavar="WORD", help="the mutants with WORD in name or criterion")
    parser.add_argument("--base", choices=BASES, action="append", help="on this solution only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants side by side (%(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one criterion (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes as JSON")
    parser.add_argument("--reasons", action="store_true", help="print the reason under each mutant")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    words = args.only or [""]
    mutants = [one for one in MUTANTS if any(word in one.name or word in one.criterion for word in words)]
    started = time.monotonic()
    judge.preload()
    criteria = judge.load_criteria()
    from tqdm import tqdm

    with tqdm(unit="mutant", leave=False, disable=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            outcomes = run(mutants, args.base or list(BASES), criteria, args.jobs, args.timeout, progress)
        except NotApplicable as problem:
            print(f"mutants: {problem}", file=sys.stderr)
            return 2
    for outcome in outcomes:
        print(verdict(outcome))
        if args.reasons and outcome.reason:
            print(f"      {outcome.reason}")
    counts = counted(outcomes, criteria)
    total = counts["mistakes"]
    print(
        f"{total['caught']} of {total['planted']} caught by the criterion meant for them alone ({total['names']} names)"
    )
    print(f"{counts['solutions']['full_marks']} of {counts['solutions']['graded']} right solutions get full marks")
    if args.json:
        result = {"seed": 0, "seconds": round(time.monotonic() - started, 1), **counts}
        result["outcomes"] = [asdict(outcome) | {"ok": outcome.ok} for outcome in outcomes]
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(not all(outcome.ok for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())

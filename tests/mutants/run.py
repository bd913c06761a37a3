"""Proves that the criteria find mistakes: python tests/mutants/run.py

Applies each mutant of part1.py, part2.py and part3.py to a copy of a right solution (the template-shaped one in
solutions/, and this repository's) and grades the part concerned. Each must be caught by the criterion meant for it,
alone. The exit code is 1 where one is missed or another criterion fails too, 2 where a mutant cannot be applied.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
BASES = {"template": HERE / "solutions" / "template_2023", "ours": TESTS.parent}
sys.dont_write_bytecode = True
sys.path[:] = [path for path in sys.path if Path(path).resolve() not in (HERE, TESTS)]
sys.path[:0] = [str(HERE), str(TESTS)]
from course import grading, judge  # noqa: E402
from course.sandbox import Limits  # noqa: E402
from course.submission import Submission, copied  # noqa: E402
from mutant import Mutant  # noqa: E402

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
        return self.caught_by == [self.criterion]


def mutated(mutant: Mutant, base: str, part: str, target: Path) -> Path:
    """A copy of the base's part with the mutant's changes. Raises NotApplicable."""
    if not (BASES[base] / part).is_dir():
        raise NotApplicable(f"{mutant.name}: {base} has no folder {part}")
    folder = copied(BASES[base] / part, target / part)
    for file, old, new in mutant.edits[base]:
        path = folder / file
        if not path.is_file():
            raise NotApplicable(f"{mutant.name}: {base} has no file {part}/{file}")
        text = path.read_text()
        if text.count(old) != 1:
            raise NotApplicable(
                f"{mutant.name}: {part}/{file} of {base} has this {text.count(old)} times, not once: {old!r}"
            )
        path.write_text(text.replace(old, new))
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


def run(mutants: list[Mutant], bases: list[str], criteria: dict, jobs: int, timeout: float, progress) -> list[Outcome]:
    """Grade every mutant on every base that it is made for, and the unchanged bases first."""
    check_names(mutants, criteria)
    planned: list[tuple[Mutant, str]] = []
    submissions: list[Submission] = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        parts = sorted({criteria[mutant.criterion].part for mutant in mutants})
        for base in bases:
            for part in parts:
                unchanged = Mutant(f"(unchanged {part})", "", {base: []})
                planned.append((unchanged, base))
                submissions.append(_submission(unchanged, base, part, Path(scratch, str(len(planned)))))
        for mutant in mutants:
            for base in bases:
                if base in mutant.edits:
                    planned.append((mutant, base))
                    part = criteria[mutant.criterion].part
                    submissions.append(_submission(mutant, base, part, Path(scratch, str(len(planned)))))
        results = grading.grade(submissions, criteria, jobs, Limits(timeout), progress=progress)
    return [_outcome(mutant, base, result) for (mutant, base), result in zip(planned, results, strict=True)]


def _submission(mutant: Mutant, base: str, part: str, target: Path) -> Submission:
    folder = mutated(mutant, base, part, target)
    return Submission(f"{mutant.name} on {base}", folder.parent, "2023", {part: folder})


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
    return f"  {outcome.name:<44} {outcome.base:<10} {said}"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", metavar="WORD", help="the mutants with WORD in name or criterion")
    parser.add_argument("--base", choices=BASES, action="append", help="on this solution only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="criteria side by side (%(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one criterion (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes as JSON")
    parser.add_argument("--reasons", action="store_true", help="print the reason under each mutant")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    words = args.only or [""]
    mutants = [one for one in MUTANTS if any(word in one.name or word in one.criterion for word in words)]
    judge.preload()
    from tqdm import tqdm

    with tqdm(unit="criterion", leave=False, disable=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            outcomes = run(mutants, args.base or list(BASES), judge.load_criteria(), args.jobs, args.timeout, progress)
        except NotApplicable as problem:
            print(f"mutants: {problem}", file=sys.stderr)
            return 2
    for outcome in outcomes:
        print(verdict(outcome))
        if args.reasons and outcome.reason:
            print(f"      {outcome.reason}")
    tried = [outcome for outcome in outcomes if outcome.criterion]
    right, names = sum(outcome.ok for outcome in tried), len({outcome.name for outcome in tried})
    print(f"{right} of {len(tried)} caught by the criterion meant for them alone ({names} mistakes)")
    if args.json:
        args.json.write_text(
            json.dumps([asdict(outcome) | {"ok": outcome.ok} for outcome in outcomes], indent=1) + "\n"
        )
    accused = any(outcome.caught_by for outcome in outcomes if not outcome.criterion)
    return int(right < len(tried) or accused)


if __name__ == "__main__":
    raise SystemExit(main())

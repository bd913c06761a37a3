"""Grades solutions of the practical: python tests/grade.py DIR [DIR ...]

Each DIR, or zip file, holds part1, part2, part3, or some of them, possibly some levels deeper or under other names.
Every criterion runs in a process of its own, on a copy; the folder is never written to. Result files are written after
each solution. The exit code is 0 when grading ran, whatever the points, and 2 where it, or a result file, failed.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = str(Path(__file__).resolve().parent)
sys.dont_write_bytecode = True
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != HERE]
sys.path.insert(0, HERE)
import course  # noqa: E402
from course.sandbox import GIB, Limits  # noqa: E402
from course.submission import EDITIONS, PARTS, Submission, find, unpacked, with_own_names  # noqa: E402

sys.path.remove(HERE)  # no other module of the suite may stand in the way of a student's


class Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong with the flags."""

    def error(self, message: str) -> None:
        self.exit(2, f"grade.py: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="folder or zip file of a solution, which holds part1, part2, part3",
    )
    for part in PARTS:
        parser.add_argument(f"--{part}", type=Path, metavar="DIR", help=f"folder of {part}, if it has another name")
    parser.add_argument(
        "--edition", choices=EDITIONS, help="year of the course's template; recognised from the code if not given"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="number of criteria to run at the same time (%(default)s)"
    )
    parser.add_argument("--timeout", type=float, default=60, help="time limit of a criterion in seconds (%(default)s)")
    parser.add_argument("--memory", type=float, default=4, help="memory limit of a criterion in GiB (%(default)s)")
    parser.add_argument("--only", action="append", metavar="WORD", help="run only the criteria with WORD in their name")
    parser.add_argument("--criteria", type=Path, metavar="DIR", help="take the criteria from part[123]_*.py in DIR")
    parser.add_argument("--list", action="store_true", help="print all criteria with their points, and grade nothing")
    parser.add_argument("--verbose", action="store_true", help="show all reasons, and what the code prints and raises")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write all results in JUnit's XML format")
    parser.add_argument(
        "--gradescope", type=Path, metavar="FILE", help="write the results of one solution as Gradescope's results.json"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write all results as an HTML page")
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags that make sense; otherwise one sentence on stderr and exit code 2."""
    parser = build_parser()
    args = parser.parse_args(argv)
    given = [getattr(args, part) for part in PARTS if getattr(args, part) is not None]
    if args.list:
        return args
    if not args.folders and not given:
        parser.error("name the folder that holds part1, part2, part3")
    if given and len(args.folders) > 1:
        parser.error("--part1, --part2 and --part3 go with one solution; grade the others in a call of their own")
    if not __debug__:
        parser.error("run it without python's flag -O, which switches assertions off, those of the solutions, too")
    for folder in [*args.folders, *given, *([args.criteria] if args.criteria else [])]:
        if not folder.is_dir() and (folder.suffix != ".zip" or not folder.is_file()):
            parser.error(f"there is no folder or zip file {folder}")
    if args.gradescope and len(args.folders) > 1:
        parser.error("--gradescope writes one solution; name one folder")
    for flag in ("jobs", "timeout", "memory"):
        if not getattr(args, flag) > 0:
            parser.error(f"--{flag} must be positive")
    for flag in ("json", "junit", "gradescope", "html"):
        file = getattr(args, flag)
        if file is not None:
            try:
                with open(file, "a"):
                    pass
            except OSError as error:
                parser.error(f"--{flag} {file}: nothing can be written there ({error.strerror})")
    return args


def submissions_of(args: argparse.Namespace, scratch: Path) -> list[Submission]:
    """The solutions that the flags name; zip files are unpacked into `scratch`."""
    given = {part: getattr(args, part) for part in PARTS}
    if args.folders:
        found = [
            find(unpacked(folder, scratch / str(i)), args.edition, **given) for i, folder in enumerate(args.folders)
        ]
        return with_own_names(found, args.folders)
    parts = {part: folder.resolve() for part, folder in given.items() if folder is not None}
    submission = find(next(iter(parts.values())), args.edition, **given)
    submission.parts = parts
    return [submission]


def main(argv: list[str] | None = None) -> int:
    for name in ("stdout", "stderr"):  # None where it is closed
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115
        stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, stream)
    args = parse_args(argv)
    if not args.verbose and sys.stderr.isatty():
        print("loading PyTorch ...", end="\r", file=sys.stderr, flush=True)
    if args.criteria:
        course.__path__.insert(0, str(args.criteria.resolve()))  # its points come before ours, too
    from course import grading, html_page, judge, reports

    judge.preload()
    criteria = judge.load_criteria(args.criteria)
    if args.only:
        criteria = {name: one for name, one in criteria.items() if any(word in name for word in args.only)}
        if not criteria:
            print(f"grade.py: no criterion has {' or '.join(args.only)} in its name", file=sys.stderr)
            return 2
    if args.list:
        print(reports.criteria_table(criteria))
        return 0
    limits, results = Limits(args.timeout, int(args.memory * GIB)), []
    written = [
        (args.json, lambda: json.dumps(reports.as_json(results), indent=1) + "\n"),
        (args.junit, lambda: reports.as_junit(results)),
        (args.gradescope, lambda: json.dumps(reports.as_gradescope(results[0]), indent=1) + "\n"),
        (args.html, lambda: html_page.page(results)),
    ]
    failed = set()
    with tempfile.TemporaryDirectory(prefix="grade-") as scratch, Progress() as progress:
        submissions = submissions_of(args, Path(scratch))
        try:
            for result in grading.grade(submissions, criteria, args.jobs, limits, args.verbose, progress):
                results.append(result)
                failed |= {file for file, text in written if file and not write(file, text())}
                show(reports.table(result, shutil.get_terminal_size().columns), end="\n\n")
                if args.verbose:
                    show(*reports.reasons(result), sep="\n", end="\n\n")
        except KeyboardInterrupt:
            print(f"grade.py: stopped; {len(results)} of {len(submissions)} solutions are graded", file=sys.stderr)
            return 130
    return 2 if failed or not any(submission.parts for submission in submissions) else 0


def write(file: Path, text: str) -> bool:
    """Replace a result file in one step; where that fails, say so and keep the last one."""
    new = file.with_name(f".{file.name}.new") if file.is_file() else file  # else a pipe or the like
    try:
        new.write_text(text, encoding="utf-8")
        if new != file:
            new.replace(file)
    except OSError as error:
        print(f"grade.py: cannot write {file} ({error.strerror}): make room, or name another file", file=sys.stderr)
        if new != file:
            new.unlink(missing_ok=True)
        return False
    return True


def show(*lines: str, **how: str) -> None:
    """Print, as long as somebody reads it."""
    try:
        print(*lines, **how, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __enter__(self):
        from tqdm import tqdm

        self.bar = tqdm(unit="criterion", leave=False, disable=not sys.stderr.isatty())
        return self

    def __call__(self, done: int, total: int) -> None:
        self.bar.total = total
        self.bar.update(done - self.bar.n)

    def __exit__(self, *error):
        self.bar.close()


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None

"""Results as a table on the terminal, as JSON, as JUnit's XML, and as Gradescope's results.json."""

import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict

from course.criterion import Criterion
from course.grading import CODING, SolutionResult
from course.points import BY_HAND, POINTS, QUESTIONS

SKIPPED = ("missing", "unjudged")


def table(result: SolutionResult, width: int = 100) -> str:
    """The table of one solution: points by tests of each coding question, and the first reason where some are lost."""
    submission = result.submission
    lines = [f"{submission.name}: edition {submission.edition}, {points(result.reached)} of {points(result.reachable)}"]
    lines[0] += " points that tests can give"
    lines += [f"  note: {note}" for note in submission.notes]
    lines += ["", f"  {'question':<10}{'by tests':>10}{'reached':>10}{'by hand':>10}   first reason"]
    for question in result.questions.values():
        part = f"part{question.number[0]}"
        if part in result.missing:
            continue
        numbers = (question.reachable, question.reached, question.by_hand)
        head = f"  {question.number:<10}" + "".join(f"{points(number):>10}" for number in numbers) + "   "
        reason = textwrap.wrap(question.first_reason, max(30, width - len(head))) or [""]
        lines.append((head + reason[0]).rstrip())
        lines += [" " * len(head) + line for line in reason[1:]]
    for part, why in result.missing.items():
        lost = sum(question.reachable for question in result.questions.values() if question.number[0] == part[-1])
        lines.append(f"  {part}: {why}" + (f", {points(lost)} points" if lost else ""))
    written = [number for number in QUESTIONS if number not in CODING and f"part{number[0]}" not in result.missing]
    lines.append(f"  by hand: {', '.join(written)}")
    return "\n".join(lines)


def criteria_table(criteria: dict[str, Criterion]) -> str:
    """All criteria with question, points and title, below what their file says of them and of what is accepted."""
    lines: list[str] = []
    said = None
    for criterion in sorted(criteria.values(), key=lambda one: (one.question, one.function.__module__)):
        about = (sys.modules[criterion.function.__module__].__doc__ or "").strip()
        if (criterion.question, about) != said:
            said = (criterion.question, about)
            lines += ["", *(f"# {line}".rstrip() for line in about.splitlines())]
        worth = POINTS.get(criterion.question, {}).get(criterion.name, 0)
        lines.append(f"{criterion.question}  {worth:>6g}  {criterion.name:<46}{criterion.title}")
    by_hand = {question: weights[BY_HAND] for question, weights in POINTS.items() if weights.get(BY_HAND)}
    lines += ["", *(f"{question}  {worth:>6g}  by hand" for question, worth in by_hand.items())]
    return "\n".join(lines).strip()


def points(number: float) -> str:
    """A number of points without needless zeros."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def as_json(results: list[SolutionResult]) -> dict:
    """All results as a dictionary for JSON."""
    return {"solutions": [_solution(result) for result in results]}


def _solution(result: SolutionResult) -> dict:
    questions = [
        {
            "question": question.number,
            "points": question.points,
            "by_hand": question.by_hand,
            "reachable": round(question.reachable, 4),
            "reached": round(question.reached, 4),
            "criteria": [asdict(finding) for finding in question.findings],
        }
        for question in result.questions.values()
    ]
    return {
        "name": result.submission.name,
        "folder": str(result.submission.folder),
        "edition": result.submission.edition,
        "parts": {part: str(folder) for part, folder in result.submission.parts.items()},
        "missing": result.missing,
        "notes": result.submission.notes,
        "reachable": round(result.reachable, 4),
        "reached": round(result.reached, 4),
        "questions": questions,
        "by_hand": [number for number in QUESTIONS if number not in CODING],
    }


def as_junit(results: list[SolutionResult]) -> str:
    """A test suite a solution, a test case a criterion."""
    root = ElementTree.Element("testsuites")
    for result in results:
        findings = [(question, finding) for question in result.questions.values() for finding in question.findings]
        failed, missing = (sum(one.status in status for _, one in findings) for status in (("failed",), SKIPPED))
        time = f"{sum(finding.seconds for _, finding in findings):.2f}"
        counts = {
            "tests": str(len(findings)),
            "failures": str(failed),
            "skipped": str(missing),
            "errors": "0",
            "time": time,
        }
        suite = ElementTree.SubElement(root, "testsuite", name=result.submission.name, **counts)
        for question, finding in findings:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=f"question {question.number}",
                name=finding.name,
                time=f"{finding.seconds:.2f}",
            )
            reason = _printable(finding.reason)
            if finding.status == "failed":
                ElementTree.SubElement(case, "failure", message=_printable(finding.hint)).text = reason
            elif finding.status in SKIPPED:
                ElementTree.SubElement(case, "skipped", message=reason)
            elif finding.status == "remark":
                ElementTree.SubElement(case, "system-out").text = reason
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable() or character in "\n\t")


def as_gradescope(result: SolutionResult) -> dict:
    """The content of results.json: a test a criterion, the points by hand left to the grader."""
    tests = [
        {
            "name": finding.title,
            "number": question.number,
            "score": finding.points if finding.status in ("passed", "remark") else 0,
            "max_score": finding.points,
            "status": "passed" if finding.status in ("passed", "remark") else "failed",
            "output": finding.reason if finding.status != "passed" else "",
        }
        for question in result.questions.values()
        for finding in question.findings
    ]
    lines = [f"{part}: {why}" for part, why in result.missing.items()] + result.submission.notes
    by_hand = [question for question in result.questions.values() if question.by_hand]
    lines += [f"question {question.number}: {points(question.by_hand)} points by hand" for question in by_hand]
    return {"score": round(result.reached, 4), "output": "\n".join(lines), "output_format": "text", "tests": tests}


def reasons(result: SolutionResult) -> list[str]:
    """All failures and remarks of a solution, a line a reason, in the order of the questions."""
    return [
        f"  {question.number} {said[0].status}, {', '.join(finding.name for finding in said)}: {reason}"
        for question in result.questions.values()
        for reason, said in question.reasons.items()
    ]

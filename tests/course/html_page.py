"""One HTML page for a class: a row per solution, a cell per question, the reasons behind a click."""

from html import escape

from course.grading import CODING, Finding, SolutionResult
from course.points import QUESTIONS
from course.reports import points

STYLE = """
:root { color-scheme: light dark; --line: #8884; --full: #2e7d3222; --some: #f9a82533; --none: #c6282833; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; }
table { border-collapse: collapse; }
th, td { border: 1px solid var(--line); padding: .4rem .6rem; vertical-align: top; text-align: left; }
thead th { position: sticky; top: 0; background: Canvas; }
tbody th { position: sticky; left: 0; background: Canvas; max-width: 18rem; overflow-wrap: anywhere; }
td.cell:has(details[open]) { min-width: 22rem; }
td.full { background: var(--full); } td.some { background: var(--some); } td.none { background: var(--none); }
summary { cursor: pointer; white-space: nowrap; }
small, dt { opacity: .7; font-weight: normal; }
td > small, summary small { white-space: nowrap; }
ul { margin: .4rem 0 0; padding-left: 1.1rem; } li { margin-bottom: .7rem; overflow-wrap: break-word; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; margin: .1rem 0; font-size: 90%; } dd { margin: 0; }
"""


def page(results: list[SolutionResult]) -> str:
    """The page; it needs no other file and no network."""
    heads = "".join(f"<th>{number}<br><small>{points(QUESTIONS[number])}</small></th>" for number in CODING)
    rows = "\n".join(_row(result) for result in results)
    written = ", ".join(number for number in QUESTIONS if number not in CODING)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Grades</title><style>{STYLE}</style></head><body>
<h1>Deep generative models and transformers</h1>
<p>Points by tests, of those that tests can give; below a question, all its points. A raised number counts the reasons
for lost points, which a click shows. By hand: the rest of these questions, and {written}.</p>
<table><thead><tr><th>Solution</th><th>Points</th>{heads}</tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def _row(result: SolutionResult) -> str:
    submission = result.submission
    notes = [*submission.notes, *(f"{part}: {why}" for part, why in result.missing.items())]
    name = f"{escape(submission.name)}<br><small>edition {submission.edition}"
    name += "".join(f"<br>{escape(note)}" for note in notes) + "</small>"
    total = f"{points(result.reached)}<small>/{points(result.reachable)}</small>"
    cells = "".join(_cell(result, number) for number in CODING)
    return f"<tr><th>{name}</th><td>{total}</td>{cells}</tr>"


def _cell(result: SolutionResult, number: str) -> str:
    question = result.questions.get(number)
    if question is None or f"part{number[0]}" in result.missing:
        return '<td class="cell"><small>-</small></td>'
    reasons = list(question.reasons.values())
    failed = sum(said[0].status == "failed" for said in reasons)
    colour = "full" if not failed else "some" if question.reached else "none"
    score = f"{points(question.reached)}<small>/{points(question.reachable)}</small>"
    if reasons:
        items = "".join(map(_item, reasons))
        score = f"<details><summary>{score} <sup>{failed or '*'}</sup></summary><ul>{items}</ul></details>"
    return f'<td class="cell {colour}">{score}</td>'


def _item(said: list[Finding]) -> str:
    """One reason, with the titles of the criteria that it fails."""
    first, titles = said[0], "; ".join(escape(finding.title) for finding in said[:2])
    titles += f"; and {len(said) - 2} more" if len(said) > 2 else ""
    listed = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in first.values)
    lost = f"-{points(sum(finding.points for finding in said))}" if first.status == "failed" else "remark"
    return f"<li><b>{escape(first.hint)}</b> <small>{lost}</small><dl>{listed}</dl><small>{titles}</small></li>"

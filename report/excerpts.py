"""Code of the repository that the report prints, found by the names of functions."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
WIDTH = 105  # characters of a line of the report; comments that go beyond it are left out
LOOPS = ("generation",)  # excerpts of which the report prints the first loop alone
# Name in the report: file, and function, of a class if there is a dot.
EXCERPTS = {
    "attention": ("part3/gpt.py", "CausalSelfAttention.forward"),
    "generation": ("part3/gpt.py", "GPT.stream"),
    "sampling": ("part3/sampling.py", "sample_logits"),
}


def excerpt(source: str, name: str, loop: bool = False) -> str:
    """A function's name and arguments, and its body without docstring and checks whose one purpose is to raise.

    Args:
        source: of a module.
        name: `function` or `Class.function`.
        loop: only the first `for` of the function, without name and arguments.

    Raises:
        LookupError: the module has no such function.
    """
    node = ast.parse(source)
    for part in name.split("."):
        node = next((child for child in node.body if getattr(child, "name", None) == part), None)
        if node is None:
            raise LookupError(f"there is no {name} any more: name its successor in report/excerpts.py")
    lines, left_out = source.splitlines(), set()
    for child in ast.walk(node):
        if isinstance(child, ast.Expr) and ast.unparse(child).startswith("_check"):
            left_out |= set(range(child.lineno, child.end_lineno + 1))
    for child in node.body:
        docstring = child is node.body[0] and ast.get_docstring(node) is not None
        if docstring or (isinstance(child, ast.If) and isinstance(child.body[0], ast.Raise)):
            left_out |= set(range(child.lineno, child.end_lineno + 1))
    first, end = node.body[0].lineno, node.end_lineno
    if loop:
        first, end = next((child.lineno, child.end_lineno) for child in ast.walk(node) if isinstance(child, ast.For))
    body = [n for n in range(first, end + 1) if n not in left_out and lines[n - 1].strip()]
    indent = min(len(lines[n - 1]) - len(lines[n - 1].lstrip()) for n in body) - 4 * (not loop)
    shown = [lines[n - 1][indent:] for n in body]
    shown = [line if len(line) <= WIDTH else re.sub(r" *# .*", "", line) for line in shown]
    head = f"def {node.name}({', '.join(argument.arg for argument in node.args.args)}):"
    return "\n".join([head] * (not loop) + [*filter(None, shown)]) + "\n"


def write_excerpts(folder: Path) -> None:
    """Write each into the folder as NAME.txt."""
    for name, (file, function) in EXCERPTS.items():
        (folder / f"{name}.txt").write_text(excerpt((REPOSITORY / file).read_text(), function, name in LOOPS))

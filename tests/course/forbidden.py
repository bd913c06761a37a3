"""Finds the package that the assignment forbids, in source code.

An import that nothing uses is accepted. Files and functions of tests are not searched, nor is what stands under
`if __name__ == "__main__"`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import torch

from course.criterion import Failure

PACKAGE = "torch.distributions"
HINT = "the assignment forbids torch.distributions: use torch.randn, torch.multinomial and the like"


def uses(source: str) -> list[tuple[str, int, str]]:
    """Where a module uses torch.distributions: function, line, and the text there."""
    tree = ast.parse(source)
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and f"{node.module}.".startswith(f"{PACKAGE}."):
            for alias in node.names:
                names |= set(torch.distributions.__all__) if alias.name == "*" else {alias.asname or alias.name}
        elif isinstance(node, ast.ImportFrom) and node.module == "torch":
            names |= {alias.asname or alias.name for alias in node.names if alias.name == "distributions"}
        elif isinstance(node, ast.Import):
            names |= {alias.asname for alias in node.names if alias.asname and alias.name.startswith(PACKAGE)}
    found = []

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            return  # the student's own checks
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name.startswith("test"):
                return
            function = node.name
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
            found.append((function, node.lineno, node.id))
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == PACKAGE:
            found.append((function, node.lineno, PACKAGE))
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(tree, "")
    return found


def uses_in(folder: Path) -> Iterator[tuple[str, str, str]]:
    """The uses in a part's files: function, the text there, and the place in words."""
    for path in sorted(Path(folder).glob("*.py")):
        if "test" in path.stem:
            continue
        try:
            places = uses(path.read_text(encoding="utf-8", errors="replace"))
        except (OSError, SyntaxError, ValueError):
            continue
        for function, line, text in places:
            yield function, text, f"{path.name}, line {line}" + (f", in {function}" if function else "")


def find_distributions(folder: Path) -> None:
    """Raise Failure where a part's file uses `torch.distributions`."""
    for _, text, place in uses_in(folder):
        raise Failure(HINT, got=f"{text} in {place}")

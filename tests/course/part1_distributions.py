"""torch.distributions, which the assignment forbids.

Accepted: an import that nothing uses; in visualize_manifold a use is a remark, since the template's hint points there.
Files and functions of tests are not searched, nor is what stands under `if __name__ == "__main__"`.
"""

import ast
from pathlib import Path

import torch

from course.criterion import Failure, Remark, criterion, is_gap

PACKAGE = "torch.distributions"


def uses(source: str) -> list[tuple[str, int, str]]:
    """Where a module uses torch.distributions: function, line, and the text there."""
    tree = ast.parse(source)
    names, modules = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and f"{node.module}.".startswith(f"{PACKAGE}."):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "torch":
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "distributions"}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.asname and alias.name.startswith(PACKAGE)}
    found = []

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            return  # the student's own checks
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name.startswith("test"):
                return
            function = node.name
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names | modules:
            found.append((function, node.lineno, node.id))
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == PACKAGE:
            found.append((function, node.lineno, PACKAGE))
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(tree, "")
    return found


@criterion("1.7")
def no_torch_distributions(part):
    """The code does without torch.distributions."""
    try:
        part.utils.sample_reparameterize(torch.zeros(1, 1), torch.ones(1, 1))
    except Exception as error:
        if is_gap(error):
            raise
    remarks = []
    for path in sorted(Path(part.folder).glob("*.py")):
        if "test" in path.stem:
            continue
        try:
            places = uses(path.read_text(errors="replace"))
        except SyntaxError:
            continue
        for function, line, text in places:
            place = f"{path.name}, line {line}" + (f", in {function}" if function else "")
            if function != "visualize_manifold":
                raise Failure("the assignment forbids torch.distributions", got=f"{text} in {place}")
            remarks.append(place)
    if remarks:
        raise Remark("torch.distributions is used for the percentiles, as the template's hint suggests", got=remarks[0])

"""Code of the repository that the report prints, found by the names of functions."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
WIDTH = 105  # characters of a line of the report; comments that go beyond it are left out
LOOPS = ("generation",)  # excerpts of which the report prints the first loop alone
# Name in the report: file, and functions, of a class if there is a dot.
EXCERPTS = {
    "attention": ("part3/gpt.py", "CausalSelfAttention.attend"),
    "generation": ("part3/gpt.py", "GPT.generate"),
    "sampling": ("part3/sampling.py", "divide_by_temperature", "keep_top_k", "keep_top_p"),
}


def excerpt(source: str, name: str, loop: bool = False) -> str:
    """A function's name and arguments, and its body without docstring.

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
    head = f"def {node.name}({', '.join(argument.arg for argument in node.args.args)}):"
    first = node.body[ast.get_docstring(node) is not None]
    if loop:
        first = node = next(child for child in ast.walk(node) if isinstance(child, ast.For))
    indent = first.col_offset - 4 * (not loop)
    lines = [line[indent:] for line in source.splitlines()[first.lineno - 1 : node.end_lineno] if line.strip()]
    lines = [line if len(line) <= WIDTH else re.sub(r" *# .*", "", line) for line in lines]
    return "\n".join([head] * (not loop) + lines) + "\n"


def write_excerpts(folder: Path) -> None:
    """Write each into the folder as NAME.txt."""
    for name, (file, *functions) in EXCERPTS.items():
        source = (REPOSITORY / file).read_text()
        text = "\n".join(excerpt(source, function, name in LOOPS) for function in functions)
        (folder / f"{name}.txt").write_text(text)

"""Code of the repository that the report prints, found by the names of functions."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
WIDTH = 105  # characters of a line of the report; comments that go beyond it are left out
# Name in the report: file; function, of a class if there is a dot; and, where the report does not print all of it, the
# beginnings of its first line and of the line after its last.
EXCERPTS = {
    "reparameterisation": ("part1/utils.py", "sample_reparameterize"),
    "reconstruction": ("part1/utils.py", "reconstruction_loss"),
    "divergence": ("part1/utils.py", "KLD"),
    "bits": ("part1/utils.py", "elbo_to_bpd"),
    "plane": ("part1/utils.py", "visualize_manifold"),
    "step": ("part2/train.py", "train_aae", "# Encoder and decoder", "logger_ae.add_values"),
    "game": ("part2/models.py", "AdversarialAE.get_loss_discriminator", "z_real", "accuracy"),
    "attention": ("part3/gpt.py", "CausalSelfAttention.attend"),
    "generation": ("part3/gpt.py", "GPT.generate"),
}


def excerpt(source: str, name: str, begin: str = "", end: str = "") -> str:
    """A function's name and arguments, and its body without docstring; or a part of its body.

    Args:
        source: of a module.
        name: `function` or `Class.function`.
        begin, end: beginnings of the part's first line and of the line after its last.

    Raises:
        LookupError: the module has no such function, or the function no such line.
    """
    node = ast.parse(source)
    for part in name.split("."):
        node = next((child for child in node.body if getattr(child, "name", None) == part), None)
        if node is None:
            raise LookupError(f"there is no {name} any more: name its successor in report/excerpts.py")
    first = node.body[ast.get_docstring(node) is not None]
    lines = [line for line in source.splitlines()[first.lineno - 1 : node.end_lineno] if line.strip()]
    if begin:
        places = [i for i, line in enumerate(lines) if line.strip().startswith((begin, end))]
        if len(places) != 2:
            raise LookupError(f"{name} has other lines now: name them in report/excerpts.py")
        lines = lines[slice(*places)]
    margin = len(lines[0]) - len(lines[0].lstrip()) - 4 * (not begin)
    lines = [line[margin:] for line in lines]
    lines = [line if len(line) <= WIDTH else re.sub(r" *# .*", "", line) for line in lines]
    lines = [line for line in lines if line]
    arguments = [argument.arg for argument in node.args.args + node.args.kwonlyargs]
    return "\n".join([f"def {node.name}({', '.join(arguments)}):"] * (not begin) + lines) + "\n"


def write_excerpts(folder: Path) -> None:
    """Write each into the folder as NAME.txt."""
    for name, (file, *place) in EXCERPTS.items():
        (folder / f"{name}.txt").write_text(excerpt((REPOSITORY / file).read_text(), *place))

"""Gaps of a template that a student left as they were.

A gap raises NotImplementedError, or is a `pass`, or gives None to what the function returns. The first says so when it
is called; `GapFinder` imports a student's files so that the others do, too.
"""

import ast
import builtins
import importlib.machinery
import importlib.util
from pathlib import Path
from types import CodeType
from typing import Any

FUNCTIONS = {
    "sample_reparameterize", "KLD", "elbo_to_bpd", "visualize_manifold", "forward", "sample", "configure_optimizers",
    "get_loss_autoencoder", "get_loss_discriminator", "generate", "train_aae",
}  # fmt: skip


class GapFinder:
    """An entry of `sys.meta_path` that finds the modules in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        file = self.folder / f"{name}.py"
        if path is not None or not file.is_file():
            return None
        return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, str(file)))


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        return self.source_to_code(self.get_data(self.path), self.path)

    def source_to_code(self, data: Any, path: Any, **kwargs: Any) -> CodeType:
        try:
            tree = marked(ast.parse(data, path))
        except (SyntaxError, ValueError):
            tree = data  # compile tells what is wrong with it
        return compile(tree, path, "exec", dont_inherit=True)


def marked(tree: ast.Module) -> ast.Module:
    """The same module, where each function that is a gap raises NotImplementedError."""
    known = {name for node in tree.body for one in (node, *ast.iter_child_nodes(node)) for name in _bound(one)}
    known |= set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in FUNCTIONS and _is_gap(node, known):
            error = ast.Raise(exc=ast.Name(id="NotImplementedError", ctx=ast.Load()), cause=None)
            node.body.insert(0, ast.fix_missing_locations(ast.copy_location(error, node.body[-1])))
    return tree


def _bound(node: ast.AST) -> list[str]:
    if isinstance(node, ast.alias):
        return [(node.asname or node.name).partition(".")[0]]
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    return [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """What is assigned to what, `a, b = None, None` taken apart."""
    both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)
    return list(zip(target.elts, value.elts, strict=True)) if both else [(target, value)]


def _is_gap(function: ast.FunctionDef, known: set[str]) -> bool:
    """Whether the function can return nothing but None."""
    nodes = [node for statement in function.body for node in ast.walk(statement)]
    if any(isinstance(node, ast.Raise) for node in nodes):
        return False
    arguments = {arg.arg for arg in ast.walk(function.args) if isinstance(arg, ast.arg)}
    values: dict[str, list[ast.expr]] = {}
    plain = set()  # the names that an assignment gives a value of its own
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target, value in (pair for one in node.targets for pair in _pairs(one, node.value)):
                if isinstance(target, ast.Name):
                    values.setdefault(target.id, []).append(value)
                    plain.add(target)
    changed = {name for node in nodes if node not in plain for name in _bound(node)}

    def is_nothing(value: ast.expr | None) -> bool:
        if value is None or (isinstance(value, ast.Constant) and value.value in (None, ...)):
            return True
        if isinstance(value, (ast.Tuple, ast.List, ast.Dict)):
            parts = value.values if isinstance(value, ast.Dict) else value.elts
            return bool(parts) and all(map(is_nothing, parts))
        if not isinstance(value, ast.Name) or value.id in changed:
            return False
        if value.id not in values:
            return value.id not in arguments | known
        return value.id not in arguments and all(map(is_nothing, values[value.id]))

    returned = [node.value for node in nodes if isinstance(node, ast.Return)]
    last = function.body[-1]
    empty = isinstance(last, ast.Pass) or (isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant))
    return all(map(is_nothing, returned)) and bool(returned or empty)

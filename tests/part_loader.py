"""Imports a part's folder in isolation.

The three parts have modules of equal names (`utils`, `train`, `mnist`), and each imports its own by bare name. A `Part`
puts its folder first on the import path and its modules into `sys.modules` while it is imported, and takes both away
again. Other people's solutions are imported by `course/student.py`, each in a process of its own.
"""

import contextlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


class Part:
    """The modules of one part as attributes: `part.utils.KLD`.

    A module that is missing, fails to import, or calls `sys.exit` fails the test that asks for it with one line.

    Args:
        folder: the part's folder, whether it exists or not.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._own: dict[str, ModuleType] = {}
        self._failed: dict[str, str] = {}

    @contextlib.contextmanager
    def imported(self):
        """While this holds, bare imports find the modules of this part, also those inside functions."""
        names = self._names()
        path, hidden = list(sys.path), _pop_modules(names)
        sys.modules.update(self._own)
        sys.path.insert(0, str(self.folder))
        importlib.invalidate_caches()
        try:
            yield self
        finally:
            sys.path[:] = path
            self._own = _pop_modules(names)
            sys.modules.update(hidden)

    def has(self, name: str) -> bool:
        """Whether the folder has a module of this name."""
        return name in self._names()

    def __getattr__(self, name: str) -> ModuleType:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._own and name not in self._failed:
            self._import(name)
        if name in self._failed:
            pytest.fail(self._failed[name], pytrace=False)
        return self._own[name]

    def _import(self, name: str) -> None:
        file = self.folder / f"{name}.py"
        if not self.has(name):
            self._failed[name] = f"{file} does not exist"
            return
        try:
            self._own[name] = importlib.import_module(name)
        except SystemExit as stop:
            self._failed[name] = f"{file} calls sys.exit({stop.code!r}) when it is imported"
        except Exception as error:
            message = " ".join(str(error).split())
            self._failed[name] = f"{file} cannot be imported: {type(error).__name__}: {message}"

    def _names(self) -> set[str]:
        files = {path.stem for path in self.folder.glob("*.py")}
        return files | {path.parent.name for path in self.folder.glob("*/__init__.py")}


def load_script(path: Path) -> ModuleType:
    """A new module from a Python file that lies on no import path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pop_modules(names: set[str]) -> dict[str, ModuleType]:
    """Take the modules of these names, with their submodules, out of `sys.modules`."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in names}

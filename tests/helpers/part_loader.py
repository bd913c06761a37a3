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


class Part:
    """The modules of one part as attributes: `part.utils.KLD`.

    Args:
        folder: the part's folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._own: dict[str, ModuleType] = {}

    @contextlib.contextmanager
    def imported(self):
        """While this holds, bare imports find the modules of this part, also those inside functions."""
        names = {path.stem for path in self.folder.glob("*.py")}
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

    def __getattr__(self, name: str) -> ModuleType:
        if not (self.folder / f"{name}.py").exists():
            raise AttributeError(f"{self.folder} has no module {name}")
        return importlib.import_module(name)


def load_script(path: Path) -> ModuleType:
    """A new module from a Python file that lies on no import path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pop_modules(names: set[str]) -> dict[str, ModuleType]:
    """Take the modules of these names, with their submodules, out of `sys.modules`."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in names}

"""A student's part: its modules as attributes, each imported when it is asked for."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from course.criterion import Failure


class MissingName(Failure, AttributeError):
    """A module or a name of the interface is not there. `hasattr`, and `getattr` with a default, see it as usual."""

    empty = True


class StudentModule(ModuleType):
    """A module of the student's, which says in one sentence that a name is missing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        kind = "class" if name[:1].isupper() and not name.isupper() else "function"
        raise MissingName(f"{_short(self)} has no {kind} {name}")


class StudentPart:
    """The modules of one part as attributes: `part.utils.KLD`.

    Args:
        folder: where the modules lie; it is put first on the import path.
        name: 'part1', 'part2' or 'part3'.
        edition: the year of the template that the solution follows: '2021', '2022', '2023' or '2024'.
        importing: called with a module's file name before its import.

    What is missing or cannot be imported raises `MissingName` with one sentence. Prints at import are harmless.
    """

    def __init__(
        self, folder: Path, name: str, edition: str = "2023", importing: Callable[[str], None] = lambda file: None
    ):
        self.folder, self.name, self.edition = Path(folder), name, edition
        self._importing = importing
        self._failed: dict[str, str] = {}
        self._own: dict[str, ModuleType] = {}
        sys.path.insert(0, str(self.folder))
        importlib.invalidate_caches()

    def has(self, name: str) -> bool:
        """Whether the folder has a module of this name, importable or not."""
        return (self.folder / f"{name}.py").is_file() or (self.folder / name / "__init__.py").is_file()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._own and name not in self._failed:
            self._import(name)
        if name in self._failed:
            raise MissingName(self._failed[name])
        return self._own[name]

    def _import(self, name: str) -> None:
        file = f"{self.folder.name}/{name}.py"
        if not self.has(name):
            self._failed[name] = f"there is no file {file}"
            return
        self._importing(file)
        try:
            module = importlib.import_module(name)
        except SystemExit as stop:
            self._failed[name] = f"{file} calls sys.exit({stop.code!r}) when it is imported"
        except ModuleNotFoundError as error:
            missing = (error.name or "").split(".")[0]
            where = "which lies neither beside it nor among the installed packages"
            self._failed[name] = f"{file} cannot be imported: it needs the module {missing}, {where}"
        except BaseException as error:  # pytest's Skipped is no Exception
            message = " ".join(str(error).replace(f"{self.folder.parent}/", "").split())
            self._failed[name] = f"{file} cannot be imported: {type(error).__name__}: {message}"
        else:
            module.__class__ = StudentModule
            self._own[name] = module


def _short(module: ModuleType) -> str:
    path = Path(module.__file__ or module.__name__)
    return f"{path.parent.name}/{path.name}"

"""Packages that a student's module imports and that are not installed here, or bear another name.

`lightning` and `pytorch_lightning` are the same library; here the second is installed, and stands for both. Any other
gets a stand-in that accepts everything and does nothing, so that the rest of the file can be judged; for packages for
plots and logs that is as good as the real one. An import inside `try` fails as it would elsewhere.
"""

import ast
import importlib
import importlib.abc
import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

PLOTS_AND_LOGS = {
    "IPython", "clearml", "colorama", "comet_ml", "cv2", "dotenv", "flash_attn", "git", "gdown", "imageio", "ipdb",
    "ipywidgets", "nltk", "pandas", "plotly", "psutil", "pudb", "pynvml", "seaborn", "skimage", "sympy", "tabulate",
    "tensorboardX", "tensorflow", "termcolor", "tiktoken", "torchinfo", "torchsummary", "torchtext", "torchviz", "umap",
    "wandb", "xformers",
}  # fmt: skip
LIGHTNING = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}


class Inert:
    """Accepts every call, attribute and loop, does nothing, and leaves functions that it decorates as they are."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Inert()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and not kwargs and callable(args[0]) else Inert()

    def __getitem__(self, key: Any) -> Any:
        return Inert()

    def __iter__(self) -> Any:
        return iter(())

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def __bool__(self) -> bool:
        return False

    def __mro_entries__(self, bases: tuple) -> tuple:
        return (object,)


class _InertModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Inert()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers for `lightning` before all others; for any other package after all others, and only where a student's
    file imports it: libraries that look for an optional package must not find one."""

    def __init__(self, students: Path, inert: bool):
        self.students, self.inert = str(students), inert
        self.replaced: list[str] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        top = name.partition(".")[0]
        missing = self.inert and (top in self.replaced or self._asked_by_student())
        wanted = missing or (not self.inert and top == "lightning")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return _InertModule(spec.name) if self.inert else None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if self.inert:
            self.replaced.append(name)
            module.__all__ = []
        elif name == "lightning":
            for library in ("lightning_fabric", "pytorch_lightning"):
                public = vars(importlib.import_module(library)).items()
                vars(module).update({key: value for key, value in public if not key.startswith("_")})
        else:
            prefix = next((known for known in LIGHTNING if (name + ".").startswith(known + ".")), "lightning")
            real = LIGHTNING.get(prefix, "pytorch_lightning") + name[len(prefix) :]
            sys.modules[name] = importlib.import_module(real)

    def _asked_by_student(self) -> bool:
        frame = sys._getframe(2)
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        return (
            frame is not None
            and frame.f_code.co_filename.startswith(self.students)
            and not _is_tried(Path(frame.f_code.co_filename), frame.f_lineno)
        )


def _is_tried(file: Path, line: int) -> bool:
    """Whether the line lies within a `try` that expects a failing import."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8", errors="replace"))):
        if isinstance(node, ast.Try) and any(one.lineno <= line <= (one.end_lineno or 0) for one in node.body):
            return bool(node.handlers)
    return False


def provide(students: Path) -> list[str]:
    """Let files below this folder import `lightning` and packages that are not here; the names of those that a stand-in
    replaced appear in the list that is returned."""
    finder = _Finder(students, inert=True)
    sys.meta_path.insert(0, _Finder(students, inert=False))
    sys.meta_path.append(finder)
    return finder.replaced

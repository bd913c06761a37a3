"""Calls one criterion on one part and puts what it finds into words. Runs in a process of its own (`sandbox.py`)."""

import gc
import importlib
import logging
import os
import random
import re
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from course import packages
from course.criterion import REGISTRY, Criterion, Failure, Remark, Unjudged, is_gap, last_own_frame, place
from course.gaps import GapFinder
from course.student import StudentPart

PRELOADED = (
    "torch",
    "torchvision",
    "pytorch_lightning",
    "lightning_fabric",
    "torch.utils.tensorboard",
    "torchmetrics",
    "matplotlib.pyplot",
    "scipy.stats",
    "tqdm.auto",
    "transformers",
)
GPU_WORDS = (
    "NVIDIA driver",
    "not compiled with CUDA",
    "No CUDA GPUs",
    "on a CUDA device",
    "CUDA error",
    "cuda runtime",
)
NO_NETWORK = "the grader has no network"
LONGEST_TEXT = 600  # characters of a reason or a value


def preload() -> None:
    """Import what the parts import, once, before the forks: with one thread, no GPU and no network."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", MPLBACKEND="Agg")
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", WANDB_MODE="disabled", TQDM_DISABLE="1")
    os.environ.update(TOKENIZERS_PARALLELISM="false", TF_CPP_MIN_LOG_LEVEL="3")
    warnings.simplefilter("ignore")
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # what a criterion really needs, it says itself
    from course import older_versions

    sys.modules["torch"].set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    older_versions.accept()
    gc.freeze()  # what is loaded stays: a collection in a fork would only copy its pages


def load_criteria(directory: Path | None = None) -> dict[str, Criterion]:
    """Import all files with criteria, and give the registry.

    Args:
        directory: where they lie, if not beside this file; it must be on the package's path then.
    """
    for file in sorted((directory or Path(__file__).parent).glob("part[123]_*.py")):
        importlib.import_module(f"course.{file.stem}")
    return REGISTRY


def judge(name: str, folder: Path, part: str, edition: str, notify: Callable[[str], None], verbose: bool) -> dict:
    """What the criterion of this name finds: a dictionary with `status` ('passed', 'remark', 'failed' or 'unjudged'),
    `hint`, `given`, `expected`, `got`. The working directory becomes the part's folder."""
    os.chdir(folder)
    os.environ.pop("DATA_DIR", None)
    sys.argv = [str(folder / "train.py")]
    sys.path.append(str(folder.parent))
    _cut_network()
    replaced = packages.provide(folder)
    _seed()
    function = REGISTRY[name].function
    sys.meta_path.insert(0, GapFinder(folder))
    student = StudentPart(folder, part, edition, importing=lambda file: notify(f"{file} is being imported"))
    try:
        function(student)
    except Failure as failure:
        failure.hint += _about(_tops(replaced) - packages.PLOTS_AND_LOGS)
        status = "remark" if isinstance(failure, Remark) else "failed"
        values = {key: _printed(getattr(failure, key)) for key in ("given", "expected", "got")}
        _trace(verbose)
        return {"status": status, "hint": _short(failure.hint), "empty": failure.empty, **values}
    except Unjudged as reason:
        return {"status": "unjudged", "hint": str(reason)}
    except BaseException as error:  # also SystemExit and pytest's outcomes
        _trace(verbose)
        hint = _in_words(error, folder) + _about(_tops(replaced))
        return {"status": "failed", "hint": _short(hint), "unexpected": True, "empty": True}
    return {"status": "passed", "hint": ""}


def _about(missing: set[str]) -> str:
    """What is to be said of packages that a stand-in replaced."""
    names = ", ".join(sorted(missing))
    return f" (the code imports {names}, not installed here: a stand-in took its place)" if missing else ""


def _tops(names: list[str]) -> set[str]:
    """The packages among these names: no name of which another is the beginning."""
    return {name for name in names if not any(name.startswith(f"{other}.") for other in names)}


def _trace(verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
        sys.stderr.flush()


def _in_words(error: BaseException, folder: Path) -> str:
    """One sentence about an exception: where in the student's files it arose, and what it says."""
    own, where = last_own_frame(error, folder), place(error, folder)
    text = " ".join(str(error).replace(f"{folder.parent}/", "").split())
    if isinstance(error, SystemExit):
        return f"{where or 'the code'} calls sys.exit({error.code!r})"
    if own and any(word in text for word in GPU_WORDS):
        return f"{where} asks for a GPU, whatever the machine: use the device of the model or of the input"
    if NO_NETWORK in text:
        return f"{where or 'the code'} asks for the network, which no criterion needs: {own.line if own else text}"
    if own and own == traceback.extract_tb(error.__traceback__)[-1]:
        if isinstance(error, NameError):
            name = re.search(r"'(\w+)'", text)
            name = name.group(1) if name else "a variable"
            if is_gap(error):
                return f"{_function(error)} is not implemented: it gives {name} no value ({where})"
            return f"{_function(error)} gives {name} no value ({where}): is it implemented, or imported?"
        if "ellipsis" in text:
            return f"{_function(error)} is not implemented ({where} works with `...`)"
        if "NoneType" in text:
            return f"{where} (`{own.line}`) works with None: is what it uses implemented?"
        if is_gap(error):
            return f"{_function(error)} is not implemented ({where})"
    if own and "optimizer got an empty parameter list" in text:
        return f"{where}: the optimizer gets no parameters: are the networks implemented?"
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if not own and "NoneType" in text:
        return "a function returns nothing (None), or something with None in it: is it implemented?"
    if isinstance(error, AssertionError) and own:
        return f"{where}: `{own.line}` does not hold" + (f" ({text})" if text else "")
    if where:
        return f"{where} (`{own.line}`) stops with {what}"
    return f"what the code returned or asked for does not fit: {what}"


def _function(error: BaseException) -> str:
    """Name of the function that raised the exception, of a method with its class."""
    last = list(traceback.walk_tb(error.__traceback__))[-1][0].f_code
    return getattr(last, "co_qualname", last.co_name)


def _printed(value: Any) -> str | None:
    try:
        return _brief(value)
    except Exception:  # a value of the student's may refuse anything
        return f"a {type(value).__name__} that cannot be printed"


def _brief(value: Any) -> str | None:
    """A value in few words: numbers with four digits, large tensors by shape and range."""
    torch = sys.modules["torch"]
    if value is None or isinstance(value, str):
        return value if value is None else _short(value)
    if isinstance(value, torch.Size):
        return str(list(value))
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.numel() == 1:
            return _brief(value.item())
        if value.numel() <= 8:
            return str([_rounded(number) for number in value.tolist()])
        values = value.float()
        return f"shape {list(value.shape)}, values {float(values.min()):.4g} to {float(values.max()):.4g}"
    return _short(str(_rounded(value)))


def _rounded(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_rounded(element) for element in value) if type(value) in (list, tuple) else value
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _seed() -> None:
    torch, numpy = sys.modules["torch"], sys.modules["numpy"]
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


def _cut_network() -> None:
    """A download ends at once instead of waiting for a network; sockets within this machine stay."""
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(NO_NETWORK)
        connect(self, address)

    def no_addresses(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in (None, "127.0.0.1", "localhost", "::1"):
            return getaddrinfo(host, *args, **kwargs)
        raise OSError(NO_NETWORK)

    getaddrinfo = socket.getaddrinfo
    socket.socket.connect = only_here
    socket.getaddrinfo = no_addresses

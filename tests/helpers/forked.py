"""Runs the parts' commands, and `grade.py`, in forked processes, without the seconds that importing PyTorch takes.

As a program, this is a server: it imports PyTorch once, and forks for each job, a line of JSON on stdin. A job is a
command on a few images, or several processes of it. Its moments are counted: before and after each gradient, each
flush of TensorBoard's events and each replaced file. At the moment that the job names, it sends itself a signal.
"""

import contextlib
import functools
import importlib
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
PRELOADED = ("torch", "pytorch_lightning", "torchvision.datasets", "torch.utils.tensorboard", "matplotlib.figure",
             "matplotlib.backends.backend_agg", "matplotlib.pyplot", "sklearn.datasets", "scipy.stats",
             "transformers", "tqdm.auto")  # fmt: skip


class Result(NamedTuple):
    """What a command left: exit code, or minus the signal that killed it; moments; stdout and stderr together."""

    code: int
    moments: list[str]
    output: str


class Commands:
    """Client of the server, and its process."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "LC_ALL": "C.UTF-8"}
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         env=environment, text=True)  # fmt: skip

    def __call__(self, part: str, script: str, *argv: object, **job) -> Result:
        """Run `part/script` with the words `argv`.

        Args:
            job: `moment` (number from 0) and `signum` (SIGKILL): when which signal comes; `max_bytes`: no file can
                become larger, as on a full disk; `env`: variables; `processes`: that train together, as torchrun
                starts them; `stdout`: "closed" or "unread".
        """
        with tempfile.TemporaryDirectory() as folder:
            job = {"part": part, "script": script, "argv": [str(word) for word in argv], "folder": folder, **job}
            print(json.dumps(job), file=self._process.stdin, flush=True)
            code = int(self._process.stdout.readline())
            moments, output = (Path(folder, name) for name in ("moments", "output"))
            return Result(code, moments.read_text().splitlines() if moments.exists() else [], output.read_text())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def serve() -> None:
    """Carry out jobs until stdin ends."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    for module in PRELOADED:
        importlib.import_module(module)
    importlib.import_module("plain_figures").plain_figures()
    for line in sys.stdin:
        job, children = json.loads(line), []
        with socket.create_server(("127.0.0.1", 0)) as place:
            port = place.getsockname()[1]
        for rank in range(job.get("processes", 1)):
            children.append(os.fork())
            if children[-1] == 0:
                try:
                    run(job, rank, port)
                except SystemExit as stop:
                    os._exit(flushed(stop.code or 0))
                except BaseException:
                    sys.excepthook(*sys.exc_info())
                os._exit(flushed(1))
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(next((code for code in codes if code), 0), flush=True)


def flushed(code: int) -> int:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


def run(job: dict, rank: int, port: int) -> None:
    """The command, in the forked process."""
    out = os.open(f"{job['folder']}/output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 2)
    if job.get("stdout") == "closed":
        os.close(1)
        sys.stdout = None
    elif job.get("stdout") == "unread":
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.close(reader)
        os.close(writer)
    else:
        os.dup2(out, 1)
    os.close(out)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    if job.get("processes"):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=str(job["processes"]),
                          LOCAL_WORLD_SIZE=str(job["processes"]), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                          TORCHELASTIC_RUN_ID="test")  # fmt: skip
    os.environ.update(job.get("env", {}))
    script = REPOSITORY / job["part"] / job["script"]
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *job["argv"]]
    if job["script"] == "train.py":
        shrink(job["part"])
    if job["part"] != "tests":
        count_moments(job)
    if job.get("max_bytes"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["max_bytes"], resource.RLIM_INFINITY))
    runpy.run_path(str(script), run_name="__main__")


def shrink(part: str) -> None:
    """A few of the digits, texts of a few tokens, and means over windows of three steps."""
    if part == "part3":
        importlib.import_module("callbacks").GenerateCallback.__init__.__defaults__ = (5, 1000, 20)
    else:
        mnist = importlib.import_module("mnist")
        mnist.digits = functools.partial(mnist.digits, limit=144)
    if part == "part2":
        importlib.import_module("utils").TensorBoardLogger.__init__.__defaults__ = (3, None)


def count_moments(job: dict) -> None:
    """Hook the functions that write, and the one that computes gradients."""
    torch, moments = importlib.import_module("torch"), []
    trace = os.open(f"{job['folder']}/moments", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def moment(name: str) -> None:
        os.write(trace, f"{name}\n".encode())
        moments.append(name)
        if len(moments) - 1 == job.get("moment"):
            os.kill(os.getpid(), job.get("signum", signal.SIGKILL))

    def hook(owner, name: str, described) -> None:
        original = getattr(owner, name)

        def hooked(*args, **kwargs):
            text = described(*args)
            moment(f"before {text}")
            result = original(*args, **kwargs)
            moment(f"after {text}")
            return result

        setattr(owner, name, hooked)

    hook(os, "replace", lambda source, target: f"replacing {Path(target).name}")
    hook(torch.utils.tensorboard.SummaryWriter, "flush", lambda writer: "flushing events")
    hook(torch.Tensor, "backward", lambda *_: "a gradient")


if __name__ == "__main__":
    serve()

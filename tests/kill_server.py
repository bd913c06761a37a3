"""Trainings that are killed at a chosen moment, without the seconds that importing PyTorch takes.

Run as a program, this is a server: it imports PyTorch once, and forks a process for each job, a line of JSON on stdin.
The process runs a part's `train.py` on a few images or a short text. Its moments are counted: before and after each
file and each event is written, before and after each gradient, and in the middle of a checkpoint. At the moment that
the job names, it sends itself a signal. `KillServer` is the client.
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PRELOADED = ("torch", "pytorch_lightning", "torchvision.utils", "torch.utils.tensorboard", "matplotlib.figure",
             "tensorboard.backend.event_processing.event_file_loader", "sklearn.datasets", "scipy.stats",
             "matplotlib.backends.backend_agg")  # fmt: skip


class KillServer:
    """Client of the server, and its process."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         env=environment, text=True)  # fmt: skip

    def train(self, part: str, argv: list[str], trace: Path, *, moment: int | None = None, seconds: float | None = None,
              signum: int = signal.SIGKILL, max_bytes: int | None = None,
              processes: int = 1) -> tuple[int, list[str], str]:  # fmt: skip
        """Run a part's `train.py`.

        Args:
            part: "part1", "part2" or "part3".
            argv: its flags.
            trace: file for the names of the moments; beside it, one for the output.
            moment: number of the moment, from 0, at which the signal comes; None: not at a moment.
            seconds: time after which the signal comes; None: not at a time.
            signum: the signal.
            max_bytes: no file can become larger, as on a full disk.
            processes: that train together, as torchrun starts them.

        Returns:
            Exit code, or minus the signal that has killed it; the names of the moments; the output.
        """
        job = {"part": part, "argv": argv, "trace": str(trace), "moment": moment, "seconds": seconds, "signum": signum,
               "max_bytes": max_bytes, "processes": processes}  # fmt: skip
        trace.with_suffix(".out").unlink(missing_ok=True)
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return code, trace.read_text().splitlines(), trace.with_suffix(".out").read_text()

    def close(self) -> None:
        """End the server. Loader workers of other tests may hold a copy of its stdin, which would then never end."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def serve() -> None:
    """Carry out jobs until stdin ends."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    for module in PRELOADED:
        importlib.import_module(module)
    importlib.import_module("plain_figures").plain_figures()
    for line in sys.stdin:
        job = json.loads(line)
        port, children = free_port() if job["processes"] > 1 else 0, []
        for rank in range(job["processes"]):
            children.append(os.fork())
            if children[-1] == 0:
                code = 1
                with contextlib.suppress(BaseException):
                    code = run(job, rank, port)
                os._exit(code)
        timer = None
        if job["seconds"] is not None:
            timer = threading.Timer(job["seconds"], os.kill, (children[0], job["signum"]))
            timer.start()
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if timer:
            timer.cancel()
        print(next((code for code in codes if code), 0), flush=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as place:
        return place.getsockname()[1]


def run(job: dict, rank: int, port: int) -> int:
    """The training, in the forked process."""
    out = os.open(str(Path(job["trace"]).with_suffix(".out")), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    trace = os.open(os.devnull if rank else job["trace"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    os.environ["LC_ALL"] = "C.UTF-8"
    if port:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job["processes"]),
                          MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))  # fmt: skip
    sys.path.insert(0, str(REPOSITORY / job["part"]))
    sys.argv = [str(REPOSITORY / job["part"] / "train.py"), *job["argv"]]
    if job["max_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["max_bytes"], resource.RLIM_INFINITY))
    train = importlib.import_module("train")
    shrink(job["part"])
    count_moments(job, trace)
    return (train.cli if job["part"] == "part2" else train.main)(job["argv"])


def shrink(part: str) -> None:
    """A few of the digits, texts of a few tokens; means over windows of three steps instead of fifty."""
    if part == "part3":
        importlib.import_module("callbacks").GenerateCallback.__init__.__defaults__ = (5, 1000, 20)
        return
    mnist, data = importlib.import_module("mnist"), importlib.import_module("torch.utils.data")
    if part == "part1":
        original = mnist._loaders

        def few(train, val, test, *rest):
            train, val = data.Subset(train.dataset, train.indices[:120]), data.Subset(val.dataset, val.indices[:40])
            return original(train, val, mnist.ImageDataset(*test[:40]), *rest)

        mnist._loaders = few
        return
    importlib.import_module("utils").TensorBoardLogger.__init__.__defaults__ = (3, None)
    original_digits = mnist.digits

    def few_digits(batch_size=64, num_workers=0, seed=None, test_batch_size=1000, pin_memory=False):
        train, test = (
            mnist.ImageDataset(*loader.dataset[: (120, 60)[i]]) for i, loader in enumerate(original_digits())
        )
        return (
            mnist._shuffled(train, batch_size, num_workers, seed, pin_memory),
            data.DataLoader(test, batch_size=test_batch_size, collate_fn=mnist.identity_collate),
        )

    mnist.digits = few_digits


def count_moments(job: dict, trace: int) -> None:
    """Hook the functions that write, and the one that computes gradients."""
    torch, event_files = importlib.import_module("torch"), importlib.import_module("event_files")
    moments = 0

    def moment(name: str) -> None:
        nonlocal moments
        os.write(trace, f"{name}\n".encode())
        if moments == job["moment"]:
            os.kill(os.getpid(), job["signum"])
            time.sleep(0)  # here Python calls the handler of another signal than SIGKILL
        moments += 1

    def hook(owner, name: str, described) -> None:
        original = getattr(owner, name)

        def hooked(*args, **kwargs):
            text = described(*args)
            moment(f"before {text}")
            result = original(*args, **kwargs)
            moment(f"after {text}")
            return result

        setattr(owner, name, hooked)

    hook(os, "replace", lambda source, target, **_: f"replacing {Path(target).name}")
    hook(event_files._EventFile, "add_event", lambda self, event: f"the event {tags_of(event)} {event.step}")
    hook(torch.Tensor, "backward", lambda *_: "a gradient")
    hook(event_files.SummaryWriter, "add_embedding", lambda *_: "writing the projector's files")
    hook(Path, "unlink", lambda path: f"removing {path.name.split('.')[0] or 'a temporary file'}")
    if hasattr(sys.modules.get("callbacks"), "save_hparams_to_yaml"):
        hook(sys.modules["callbacks"], "save_hparams_to_yaml", lambda *_: "writing hparams.yaml")
    original_save = torch.save

    def save(content, file, *args, **kwargs):
        written = 0

        class Half:
            def write(self, data):
                nonlocal written
                written += 1
                if written in (1, 40):
                    moment("within a checkpoint")
                return file.write(data)

            def __getattr__(self, name):
                return getattr(file, name)

        original_save(content, Half(), *args, **kwargs)

    torch.save = save


def tags_of(event) -> str:
    return " ".join(value.tag for value in event.summary.value) or "without tag"


if __name__ == "__main__":
    serve()

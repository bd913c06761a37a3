"""Which processes train together, and what ends them before their time. The same file in all three parts.

A training on one device is one process, whatever SLURM or torchrun have left in the environment. One on several devices
takes the processes that torchrun or srun has started, or starts them itself.
"""

import argparse
import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import torch
from lightning_fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from lightning_fabric.utilities.rank_zero import rank_zero_only

from cli import CHILD_VARIABLE, WARNED, InputError, Stopped, complain, raise_if_stopped, state

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
INTERACTIVE_STEPS = 0xFFFFFFF0  # SLURM's step numbers from here on are no `srun` of several tasks
GRACE = 20  # seconds that the others have to end by themselves after one process has ended
NO_MEMORY = ("not enough memory", "out of memory", "allocate memory", "alloc_cpu", "STATUS_ALLOC_FAILED",
             "Storage size calculation overflowed")  # fmt: skip
NO_COMPILER = ("InductorError", "BackendCompilerFailed", "InvalidCxxCompiler", "TritonMissing", "GPUTooOldForTriton")
PEER_LOST = ("Connection closed by peer", "Connection reset by peer", "connectFullMesh", "Broken pipe", "wait timeout",
             "Socket Timeout", "remote process exited", "timed out")  # fmt: skip


class Processes(ClusterEnvironment):
    """The processes of a training, for Lightning and Fabric. They read nothing from the environment.

    Args:
        world_size: number of all processes.
        rank: number of this one.
        local_rank: its number on its machine.
        node_rank: number of its machine.
        address, port: where the first process listens.
        own: `start` has to start the others on this machine.
    """

    def __init__(self, world_size=1, rank=0, local_rank=0, node_rank=0, address="127.0.0.1", port=0, own=False):
        self.numbers = (world_size, rank, local_rank, node_rank)
        self.address, self.port, self.own = address, port, own

    creates_processes_externally = True  # start() does it here
    main_address = property(lambda self: self.address)

    @property
    def main_port(self) -> int:
        self.port = self.port or find_free_network_port()
        return self.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.numbers[0]

    def global_rank(self) -> int:
        return self.numbers[1]

    def local_rank(self) -> int:
        return self.numbers[2]

    def node_rank(self) -> int:
        return self.numbers[3]

    def set_world_size(self, size: int) -> None:
        pass  # given once and for all, as are the ranks

    def set_global_rank(self, rank: int) -> None:
        pass

    def start(self, num_devices: int) -> None:
        """Start the other processes on this machine, if that is our task; each runs the same command."""
        if not self.own:
            return
        self.own = False
        script = sys.modules["__main__"]
        if getattr(script, "__file__", None) is None:
            raise InputError("several processes cannot be started from a notebook or a shell of Python: run train.py, "
                             "or give --devices 1")  # fmt: skip
        module = getattr(script.__spec__, "name", None)
        command = [sys.executable, *(["-m", module] if module else [os.path.abspath(sys.argv[0])]), *sys.argv[1:]]
        world_size, rank, _, node_rank = self.numbers
        children = []
        for local_rank in range(1, num_devices):
            place = (world_size, rank + local_rank, local_rank, node_rank, self.main_port, self.address)
            children.append(subprocess.Popen(command, env={**os.environ, CHILD_VARIABLE: " ".join(map(str, place))}))
        state.children = tuple(children)
        atexit.register(end_children, children)
        threading.Thread(target=_watch, args=(children,), daemon=True).start()


def find_processes(num_devices: int, num_nodes: int) -> Processes:
    """The processes of a training on `num_devices` devices on each of `num_nodes` machines.

    Raises:
        InputError: the processes that srun or torchrun has started are not as many as that.
    """
    found = Processes()
    if num_devices * num_nodes > 1:
        found = (
            _child(num_devices * num_nodes)
            or _torchrun(num_devices, num_nodes)
            or _srun(num_devices, num_nodes)
            or _own(num_devices, num_nodes)
        )
    if found.own or found.world_size() == 1:
        for name in [*TORCHRUN, "GROUP_RANK", "NODE_RANK", *(n for n in os.environ if n.startswith("TORCHELASTIC_"))]:
            os.environ.pop(name, None)  # PyTorch would read them
    rank_zero_only.rank = state.rank = found.global_rank()  # Lightning takes RANK or SLURM_PROCID when it is imported
    return found


def _child(world_size: int) -> Processes | None:
    """What `Processes.start` of another process has told this one."""
    place = os.environ.get(CHILD_VARIABLE, "").split()
    if len(place) != 6 or int(place[0]) != world_size:
        return None
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    return Processes(*map(int, place[:4]), address=place[5], port=int(place[4]))


def _torchrun(num_devices: int, num_nodes: int) -> Processes | None:
    values = {name: os.environ.get(name, "") for name in (*TORCHRUN, "LOCAL_WORLD_SIZE")}
    if not values["MASTER_ADDR"] or not all(values[n].isdecimal() for n in TORCHRUN if n != "MASTER_ADDR"):
        return None
    world_size, rank, local_rank = (int(values[name]) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"))
    if world_size != num_devices * num_nodes or int(values["LOCAL_WORLD_SIZE"] or num_devices) != num_devices:
        on_each = f", {values['LOCAL_WORLD_SIZE']} on this machine" if values["LOCAL_WORLD_SIZE"] else ""
        raise InputError(
            f"--devices {num_devices} and --num_nodes {num_nodes} ask for {num_devices * num_nodes} processes, but "
            f"torchrun (WORLD_SIZE) speaks of {world_size}{on_each}: make them agree, or unset WORLD_SIZE"
        )
    if rank >= world_size or local_rank >= num_devices:
        raise InputError(
            f"RANK {rank} and LOCAL_RANK {local_rank} are none of {world_size} processes, {num_devices} on a machine: "
            "start the training with torchrun, or unset RANK"
        )
    return Processes(world_size, rank, local_rank, rank // num_devices, values["MASTER_ADDR"],
                     int(values["MASTER_PORT"]))  # fmt: skip


def _srun(num_devices: int, num_nodes: int) -> Processes | None:
    """The tasks of `srun`. In a job's own shell, which has some of its variables, too, there is one task."""
    values = {
        name: os.environ.get(f"SLURM_{name}", "") for name in ("PROCID", "LOCALID", "NODEID", "STEP_ID", "JOB_ID")
    }
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS", "")
    in_step = values["STEP_ID"].isdecimal() and int(values["STEP_ID"]) < INTERACTIVE_STEPS
    if not tasks.isdecimal() or int(tasks) == 1 or not (in_step or values["PROCID"] not in ("", "0")):
        return None
    if int(tasks) != num_devices * num_nodes:
        raise InputError(
            f"--devices {num_devices} and --num_nodes {num_nodes} ask for {num_devices * num_nodes} processes, but "
            f"srun has started {tasks} tasks: give --ntasks-per-node the number of --devices, and --nodes that of "
            "--num_nodes"
        )
    for name in ("PROCID", "LOCALID", "NODEID"):
        least = {"PROCID": int(tasks), "LOCALID": num_devices, "NODEID": num_nodes}[name]
        if not values[name].isdecimal() or int(values[name]) >= least:
            raise InputError(
                f"SLURM_{name} is {values[name] or 'missing'}, and must be below {least} for --devices {num_devices} "
                f"and --num_nodes {num_nodes}: start the training with srun, or unset SLURM_PROCID"
            )
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "127.0.0.1")
    address = os.environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    port = os.environ.get("MASTER_PORT", "")
    port = int(port) if port.isdecimal() else 15000 + int(values["JOB_ID"][-4:] or 0)
    return Processes(int(tasks), *(int(values[name]) for name in ("PROCID", "LOCALID", "NODEID")), address, port)


def _own(num_devices: int, num_nodes: int) -> Processes:
    """Processes that we start on this machine; on several machines, somebody has to say which one is the first."""
    if num_nodes == 1:
        return Processes(num_devices, own=True)
    node, address, port = (os.environ.get(name, "") for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT"))
    if not (node.isdecimal() and int(node) < num_nodes and address and port.isdecimal()):
        raise InputError(
            f"--num_nodes {num_nodes} needs the same command on each machine, started by srun or torchrun, or with "
            f"NODE_RANK (0 to {num_nodes - 1}), MASTER_ADDR and MASTER_PORT: give --num_nodes 1 to train on this one"
        )
    return Processes(num_devices * num_nodes, int(node) * num_devices, 0, int(node), address, int(port), own=True)


def count_devices(devices: str | int, num_gpus: int) -> int:
    """Number of devices that `--devices` stands for; 'auto' means all GPUs, or one CPU process."""
    return max(1, num_gpus) if str(devices) == "auto" else int(devices)


# ------------------------------------------------------------------------------------------------------- ends of others


def end_children(children: list[subprocess.Popen]) -> None:
    """Wait for the processes that this one has started; end those that do not end by themselves."""
    for signum, seconds in ((None, 1), (signal.SIGTERM, 3), (None, 0)):
        deadline = time.monotonic() + seconds
        for child in children:
            if signum and child.poll() is None:
                child.send_signal(signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
    for child in children:
        if child.poll() is None:
            child.kill()
            child.wait()


def _watch(children: list[subprocess.Popen]) -> None:
    """If a process ends early, and this one hangs in a message to it, end the training with a sentence."""
    while all(child.poll() in (None, 0) for child in children):
        time.sleep(0.5)
    time.sleep(GRACE)
    code = next(child.returncode for child in children if child.returncode)
    if not state.over:
        prog = os.path.basename(sys.argv[0])
        complain(prog, f"another process of the training ended with exit code {code}: --resume continues it")
        for child in children:
            child.kill()
        os._exit(2 if state.received is None else 128 + state.received)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(GRACE)
    os._exit(2)


# ------------------------------------------------------------------------------------------------ warnings and failures


class StopRequest:
    """Context of a training in which signals raise nothing, but are asked for. SIGINT and SIGTERM end it before its
    next batch. SIGUSR1, SLURM's warning before the time is over, ends it, in all processes together, where it has
    written a checkpoint."""

    def __init__(self):
        self.asked = False

    def __enter__(self):
        self._previous = None
        if hasattr(signal, "SIGUSR1") and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGUSR1, self._ask)
        state.waits = True
        return self

    def __exit__(self, *error) -> None:
        state.waits = False
        if self._previous is not None:
            signal.signal(signal.SIGUSR1, self._previous)

    def _ask(self, number: int, frame) -> None:
        self.asked = True

    def agreed(self, device: torch.device) -> bool:
        """Whether any of the processes was asked; to be called in all of them."""
        raise_if_stopped()
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self.asked
        asked = torch.tensor(float(self.asked), device=device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return bool(asked.item())

    def stop_if_asked(self, device: torch.device) -> None:
        """Raises Stopped, with exit code 138, if any of the processes was asked to stop."""
        if self.agreed(device):
            raise Stopped(WARNED)


@contextlib.contextmanager
def explained_failures(lower: str) -> Iterator[None]:
    """Context in which a failure of the machine becomes an InputError: too little memory, a compiler that fails, an
    operation that is not deterministic, a process of the training that is gone.

    Args:
        lower: what a user should lower where the memory does not suffice.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        text = str(error)
        reason = (text.strip().splitlines() or [type(error).__name__])[0][:300]
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(hint in text for hint in NO_MEMORY):
            raise InputError(f"the memory does not suffice ({reason}): lower {lower}") from error
        if "use_deterministic_algorithms" in text:
            raise InputError(f"--deterministic cannot be had here ({reason}): leave it out") from error
        if type(error).__name__ in NO_COMPILER:
            raise InputError(f"--compile: PyTorch cannot compile the model here ({reason}): leave it out") from error
        if (state.rank is not None and torch.distributed.is_available() and torch.distributed.is_initialized()
                and any(hint in text for hint in PEER_LOST)):  # fmt: skip
            raise InputError(
                "another process of the training has ended: see its message, and continue with --resume"
            ) from error
        raise


def check_compiler(args: argparse.Namespace) -> None:
    """Raises InputError if `--compile` is given where there is no C++ compiler, which torch.compile needs."""
    if not args.compile:
        return
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if shutil.which(compiler) is None:
        raise InputError(f"--compile needs a C++ compiler, and there is no {compiler} here: install it, name another "
                         "one in the environment variable CXX, or leave --compile out")  # fmt: skip

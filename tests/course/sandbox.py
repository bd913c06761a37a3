"""Runs functions in processes of their own, so that nothing one of them does can cost another its result.

The grader imports PyTorch once and forks for each job twice: a guard, and its child, the runner, in which the student's
code is called. The guard alone talks to the grader. It stops the runner at the time and memory limits, and then kills
all that the runner started: it is their subreaper (prctl(2)), so that a process that left its parent's group, or
outlived it, still is its descendant. The runner's result counts only with a random token that the guard made.
"""

import contextlib
import ctypes
import json
import os
import resource
import secrets
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 2**30
MAX_PROCESSES = 64  # that one job may start; a data loader's workers are few
POLL_SECONDS = 0.1
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True)
class Limits:
    """What one job may use: wall-clock seconds, and bytes of resident memory of all its processes together."""

    seconds: float = 60.0
    memory: int = 4 * GIB


@dataclass(frozen=True)
class Job:
    """A function to be run. It gets `notify`, which notes what is being done, and returns a dictionary for JSON."""

    key: Any
    function: Callable[[Callable[[str], None]], dict]


@dataclass(frozen=True)
class Ended:
    """How a job ended: its result, or None and a sentence that says why there is none."""

    result: dict | None
    why: str = ""
    seconds: float = 0.0


def run_jobs(jobs: Iterable[Job], at_once: int, limits: Limits, quiet: bool = True) -> Iterator[tuple[Job, Ended]]:
    """Run the jobs, `at_once` side by side, and yield each with its end, in the order in which they end.

    Args:
        quiet: send what the jobs print to nowhere.
    """
    running: dict[int, tuple[Job, int, float, bytearray]] = {}  # by the file descriptor of the guard's report
    queue = iter(jobs)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a guard leaves behind that was killed itself comes to this process
    try:
        while True:
            while len(running) < at_once and (job := next(queue, None)) is not None:
                fd, guard = _fork_guard(job, limits, quiet, list(running))
                running[fd] = (job, guard, time.monotonic(), bytearray())
            if not running:
                return
            ready, _, _ = select.select(list(running), [], [], 1.0)
            for fd, (job, guard, started, report) in list(running.items()):
                seconds = time.monotonic() - started
                chunk = os.read(fd, 65536) if fd in ready else None
                if chunk:
                    report += chunk
                elif chunk == b"" or seconds > limits.seconds + 15:
                    del running[fd]
                    os.close(fd)
                    _kill_guard(guard)
                    _kill_strays({other for _, other, _, _ in running.values()})
                    yield job, _parsed(report, seconds)
    finally:
        for _, guard, _, _ in running.values():
            _kill_guard(guard)
        if running:
            _kill_strays(set())


def _parsed(report: bytes, seconds: float) -> Ended:
    try:
        return Ended(**json.loads(report), seconds=seconds)
    except (ValueError, TypeError):
        return Ended(None, "the code killed its process, or somebody else did", seconds)


def _fork_guard(job: Job, limits: Limits, quiet: bool, others: list[int]) -> tuple[int, int]:
    """The file descriptor of the guard's report, and the guard's process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    guard = os.fork()
    if guard == 0:
        try:
            os.setsid()
            for fd in (read, *others):
                os.close(fd)
            _guard(job, limits, quiet, write)
        finally:
            os._exit(0)
    os.close(write)
    return read, guard


def _kill_guard(guard: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        for pid in _descendants(guard):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        os.kill(guard, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(guard, 0)


def _kill_strays(guards: set[int]) -> None:
    """Kill the children of this process that are no guards, with all their descendants."""
    for child in _children(os.getpid()):
        if child not in guards:
            _kill_guard(child)


def _guard(job: Job, limits: Limits, quiet: bool, report: int) -> None:
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    token = secrets.token_hex(16)
    read, write = os.pipe()
    runner = os.fork()
    if runner == 0:
        try:
            os.setsid()  # a kill of one's own process group does not reach the guard
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(read)
            os.close(report)
            _run(job, limits, quiet, write, token)
        finally:
            os._exit(0)
    os.close(write)
    result, why = _watch(runner, read, token, limits)
    _kill_descendants(runner)
    os.write(report, json.dumps({"result": result, "why": why}).encode())


def _watch(runner: int, pipe: int, token: str, limits: Limits) -> tuple[dict | None, str]:
    """The runner's result, or None and why there is none."""
    deadline, received, doing, open_ = time.monotonic() + limits.seconds, b"", "", True
    inherited = _resident(os.getpid())  # pages of the grader, which every fork shares until it writes to them
    while True:
        ended = os.waitpid(runner, os.WNOHANG)
        if open_ and select.select([pipe], [], [], 0 if ended[0] else POLL_SECONDS)[0]:
            chunk = os.read(pipe, 65536)
            open_ = bool(chunk)
            received += chunk
            *lines, received = received.split(b"\n")
            for line in lines:
                note, result = _message(line, token)
                if result is not None:
                    return result, ""
                doing = note or doing
            if chunk:
                continue
        while_doing = f" while {doing}" if doing else ""
        if ended[0]:
            return None, _exit_sentence(ended[1]) + while_doing
        if not open_:
            time.sleep(0.002)
        if time.monotonic() > deadline:
            return None, f"it did not end within {limits.seconds:g} seconds{while_doing}"
        pids = [runner, *_descendants(runner)]
        if len(pids) > MAX_PROCESSES:
            return None, f"it started more than {MAX_PROCESSES} processes{while_doing}"
        if sum(max(0, _resident(pid) - inherited) for pid in pids) > limits.memory:
            return None, f"it needs more than {limits.memory / GIB:g} GiB of memory{while_doing}"


def _message(line: bytes, token: str) -> tuple[str, dict | None]:
    """The note or the result in a line; neither where the line does not carry the token."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        message = json.loads(line)
        if secrets.compare_digest(message["token"], token):
            return message.get("note", ""), message.get("result")
    return "", None


def _exit_sentence(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        names = {signal.SIGSEGV: "a segmentation fault", signal.SIGKILL: "a kill", signal.SIGABRT: "an abort"}
        return f"the process was ended by {names.get(number, f'signal {number}')}"
    return f"the code ended the whole process (exit code {os.WEXITSTATUS(status)})"


def _run(job: Job, limits: Limits, quiet: bool, pipe: int, token: str) -> None:
    """In the runner: call the job's function and send its result."""
    runner = os.getpid()

    def send(**message: Any) -> None:
        if os.getpid() == runner:  # not from a copy that the student's code forked
            data = json.dumps({"token": token, **message}).encode() + b"\n"
            while data:
                data = data[os.write(pipe, data) :]

    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2) if quiet else (0,):
        os.dup2(nothing, fd)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(ValueError, OSError):
        # The guard watches resident memory; this stops one huge allocation before it is touched.
        most = _size_of_address_space() + 4 * limits.memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        result = job.function(lambda note: send(note=note))
    except BaseException as error:
        result = {"status": "failed", "hint": f"the grader itself failed: {error!r}", "unexpected": True}
    send(result=result)
    if not quiet:
        sys.stdout.flush()


def _size_of_address_space() -> int:
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 64 * GIB


def _descendants(pid: int) -> list[int]:
    """Process ids of the children, their children and so on; none where the system has no /proc."""
    found, unseen = [], [pid]
    while unseen:
        children = _children(unseen.pop())
        found += children
        unseen += children
    return found


def _children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in path.read_text().split()]
    return found


def _resident(pid: int) -> int:
    """Resident memory that the process does not share with others, in bytes; 0 where it is gone."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(resident) - int(shared)) * resource.getpagesize()
    return 0


def _kill_descendants(runner: int) -> None:
    """Kill the runner and everything that it started, also what left its session."""
    until = time.monotonic() + 5
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(runner, signal.SIGKILL)
    while time.monotonic() < until:
        alive = [pid for pid in _descendants(os.getpid()) if not _is_zombie(pid)]
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not alive:
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):  # first nobody forks any more
            for pid in alive:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        time.sleep(0.002)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return True


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)

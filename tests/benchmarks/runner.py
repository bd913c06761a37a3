"""Runs benchmarks: measures several implementations of the same task alternately, each in its own process.

Alternating spreads a disturbance of the machine over all implementations. An implementation is a function that takes
the parsed flags, prepares models and data, and returns `measure(seed, steps)`: it does the work (`steps` of 0: all of
it) and returns a dictionary of measurements with at least `seconds`. The entry "limit" measures the machine's peak
rates instead.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from run import InputError, Parser, atomic_write, device_name, path, run_command, whole_number

REPOSITORY = Path(__file__).resolve().parents[2]
Measure = Callable[[int, int], dict]
PLAIN = ("baseline", "pythae", "transformers", "limit")  # run without this repository's settings of the process
NO_OTHERS = (
    "ignored: only part 3's training has further implementations (`make bench` hands each flag to all benchmarks)"
)


def build_parser(prog: str, description: str, steps: int, fewest: int = 0, most: int = 10**6,
                 others: str = NO_OTHERS) -> Parser:  # fmt: skip
    """The flags that all benchmarks share.

    Args:
        prog: file of the benchmark.
        description: its docstring, of which the help shows the first paragraph.
        steps, fewest, most: default, least and greatest value of `--steps`.
        others: help of `--others`.
    """
    parser = Parser(prog, description.split("\n\n")[0])
    parser.add_argument("--data_dir", type=path, default=os.environ.get("DATA_DIR", str(REPOSITORY / "data")),
                        help="directory with MNIST/raw and text; DATA_DIR replaces the default")  # fmt: skip
    parser.add_argument("--rounds", type=whole_number(2, 1000), default=3,  # one round has no spread
                        help="measurements of each implementation, each with its own seed")  # fmt: skip
    parser.add_argument("--steps", type=whole_number(fewest, most), default=steps,
                        help="steps of a measurement; in parts 1 and 2, 0 means a whole epoch")  # fmt: skip
    parser.add_argument("--others", nargs="*", choices=("bf16", "compile"), default=[], help=others)
    parser.add_argument("--output", type=path, default=str(REPOSITORY / "report" / "results" / "bench_DEVICE.json"),
                        help="JSON file; DEVICE stands for cpu or the name of the GPU")  # fmt: skip
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def main(implementations: dict, compare: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """The command of a benchmark, and of the processes that it starts; returns the exit code.

    Args:
        implementations: functions by name.
        compare: measures them with `run_benchmark`, and writes the results.
        args: the parsed flags.
    """

    def command(args: argparse.Namespace) -> None:
        if args.worker:
            serve(implementations[args.worker](args))
        else:
            read_results(args.output)  # one that cannot be used should be noticed now
            compare(args)

    if args.worker in PLAIN:
        command(args)
        return 0
    return run_command(command, args)


def serve(measure: Measure) -> None:
    """The process of one implementation: reads a seed and a number of steps per line, answers with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # stdout carries the answers alone
    for line in sys.stdin:
        result = measure(*map(int, line.split()))
        print(json.dumps({**result, "peak_mib": peak_mib()}), file=answers, flush=True)


def limit(args: argparse.Namespace) -> Measure:
    """The entry that measures the machine's peak rates."""
    import limits

    return limits.measure_limits


def run_benchmark(script: str, names: Iterable[str], args: argparse.Namespace, options: Iterable[str] = ()) -> dict:
    """Measure every implementation once a round, after a warm-up of three steps that does not count.

    The implementation that goes first changes from round to round.

    Args:
        script: file of the benchmark, which calls `main`.
        names: of the implementations.
        args: the parsed flags.
        options: further flags for the implementations' processes.

    Returns:
        For each implementation a list of measurements, one per round.

    Raises:
        InputError: the process of an implementation ended early.
    """
    command = [sys.executable, "-W", "ignore", script, "--data_dir", args.data_dir, "--rounds", str(args.rounds),
               *options, "--worker"]  # fmt: skip
    workers = {
        name: subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for name in names
    }
    found: dict[str, list[dict]] = {name: [] for name in workers}
    try:
        for seed in range(args.rounds + 1):
            first = seed % len(workers)
            for name in [*workers][first:] + [*workers][:first]:
                worker = workers[name]
                worker.stdin.write(f"{seed} {args.steps if seed else 3}\n")
                if not (line := worker.stdout.readline()):
                    raise InputError(
                        f"the process of implementation {name} ended with exit code {worker.wait()}: see its message "
                        "above; without one, the system ended it, probably for lack of memory"
                    )
                if seed:
                    found[name].append(json.loads(line))
                    print(f"round {seed} of {args.rounds}: {name:22s}", one_line(found[name][-1]), flush=True)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return found


def one_line(result: dict) -> str:
    """The numbers of a result in one line."""
    values = {name: value for name, value in result.items() if isinstance(value, int | float)}
    return "  ".join(f"{name} {value:,.4g}" for name, value in values.items())


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, minimum and maximum, to five significant digits."""
    values = list(values)
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def table(found: dict[str, list[dict]]) -> dict[str, dict]:
    """`spread` over the rounds of every number that an implementation measured."""
    return {
        name: {key: spread(result[key] for result in results) for key, value in results[0].items() if is_number(value)}
        for name, results in found.items()
    }


def is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def ratios(ours: list[dict], theirs: list[dict], key: str = "seconds") -> dict[str, float]:
    """`spread` of the ratio ours / theirs of each round."""
    return spread(a[key] / b[key] for a, b in zip(ours, theirs, strict=True))


def agree(ours: list[dict], theirs: list[dict], key: str = "loss") -> dict:
    """Compare the mean losses of two implementations; they agree if the means differ by less than the seeds do.

    Returns:
        both means, their difference, the larger of the two ranges over seeds, and `agree`.
    """
    losses = [[result[key] for result in results] for results in (ours, theirs)]
    means = [statistics.mean(values) for values in losses]
    width = max(max(values) - min(values) for values in losses)
    return {"ours": means[0], "theirs": means[1], "difference": abs(means[0] - means[1]), "range_over_seeds": width,
            "agree": abs(means[0] - means[1]) <= width}  # fmt: skip


def peak_mib(process: int | str = "self") -> float | None:
    """Peak resident memory of a process so far, in MiB; None if the system does not report it."""
    try:
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return None
    return int(peak[1]) / 1024 if peak else None


def run_whole(command: list[str]) -> dict[str, float | None]:
    """Seconds and peak resident MiB of a command.

    Raises:
        subprocess.CalledProcessError: its exit code is not 0.
    """
    start, peak = time.perf_counter(), None
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        # Read while it runs: getrusage reports the parent's peak if that is higher.
        while process.poll() is None:
            peak = peak_mib(process.pid) or peak
            time.sleep(0.01)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {"seconds": time.perf_counter() - start, "peak_mib": peak}


def one_epoch(part: str, data_dir: str) -> dict[str, float]:
    """Seconds and peak memory of a part's `train.py --epochs 1`, from start to exit."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(REPOSITORY / part / "train.py"), "--epochs", "1", "--data_dir", data_dir]
        return run_whole([*command, "--log_dir", folder])


def help_seconds(part: str, rounds: int = 9) -> dict[str, float]:
    """`spread` of the seconds that a part's `train.py --help` takes."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        command = [sys.executable, str(REPOSITORY / part / "train.py"), "--help"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - start)
    return spread(seconds)


def machine() -> dict:
    """Description of the device; `device_class` is "cpu" or the GPU's name in lower case, `gpu` its name or None."""
    import torch

    import limits

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"device": device_name(limits.device()), "gpu": gpu,
            "device_class": re.sub(r"[^a-z0-9]+", "-", (gpu or "cpu").lower())}  # fmt: skip


def read_results(output: str) -> tuple[Path, dict]:
    """The file that `--output` stands for, and its content; empty if it does not exist. Raises InputError if it cannot
    be used."""
    file = Path(output.replace("DEVICE", machine()["device_class"]))
    try:
        content = json.loads(file.read_text()) if file.exists() else {}
        if isinstance(content, dict):
            return file, content
    except (OSError, ValueError):
        pass
    raise InputError(f"--output {file} is not a JSON file of results: name another file, or remove this one")


def write(output: str, section: str, result: dict, packages: Iterable[str] = ()) -> None:
    """Write a benchmark's section into the file of this device; drop sections that another device measured."""
    here, (file, old) = machine(), read_results(output)
    old = old if old.get("device") == here["device"] else {}
    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in ("torch", *packages)}}
    stamp = {"versions": versions, "finished": datetime.now(UTC).isoformat(timespec="seconds")}
    atomic_write(file, json.dumps({**old, **here, section: {**result, **stamp}}, indent=2) + "\n")
    for key, value in result.items():
        if isinstance(value, dict) and key != "rows":
            print(f"{key:26s}", one_line(value))
    print(f"{section} is in {file}")

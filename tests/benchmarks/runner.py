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

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "report" / "results"
Measure = Callable[[int, int], dict]
NO_OTHERS = (
    "ignored: only part 3's training has further implementations (`make bench` hands each flag to all benchmarks)"
)


class BenchmarkError(Exception):
    """A benchmark cannot be run."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def build_parser(description: str, steps: int, others: str = NO_OTHERS) -> Parser:
    """The flags that all benchmarks share.

    Args:
        description: the first line of the benchmark's docstring.
        steps: default of `--steps`.
        others: help of `--others`.
    """
    parser = Parser(description=description)
    parser.add_argument("--data_dir", default=os.environ.get("DATA_DIR", str(REPOSITORY / "data")),
                        help="directory with MNIST/raw and text (default: $DATA_DIR, else data)")  # fmt: skip
    parser.add_argument(
        "--rounds", type=int, default=3, help="measurements of each implementation, each with its own seed"
    )
    parser.add_argument(
        "--steps", type=int, default=steps, help="steps of a measurement; in parts 1 and 2, 0 means a whole epoch"
    )
    parser.add_argument("--others", nargs="*", choices=("bf16", "compile"), default=[], help=others)
    parser.add_argument("--output", type=Path, help="JSON file (default: report/results/bench_DEVICE.json)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def parse(parser: Parser, fewest_steps: int = 0) -> argparse.Namespace:
    """Parse and check the command line; exits with code 2 after one sentence about a value that cannot be used."""
    args = parser.parse_args()
    for name, least in (("rounds", 2), ("steps", fewest_steps)):  # one round has no spread
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}, not {getattr(args, name)}")
    if args.output and args.output.is_dir():
        parser.error(f"--output {args.output} is a folder: name a file")
    try:
        read_results(args.output)
    except ValueError:
        parser.error(f"--output {args.output} is not a JSON file of results: name another file, or remove this one")
    return args


def read_results(file: Path | None) -> dict:
    """Content of a file of results; empty if the file does not exist.

    Raises:
        ValueError: it is not a JSON object in UTF-8.
    """
    content = json.loads(file.read_text()) if file and file.exists() else {}
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a JSON object")
    return content


def run_command(main: Callable[[], int]) -> int:
    """Run a benchmark; returns its exit code: 0, or 2 after one sentence that says why it cannot be run."""
    try:
        return main()
    except BenchmarkError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        return 2


def serve(implementations: dict[str, Callable[[argparse.Namespace], Measure]], args: argparse.Namespace) -> None:
    """The process of one implementation: reads a seed and a number of steps per line, answers with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # stdout carries the answers, so other output goes to stderr
    try:
        measure = implementations[args.worker](args)
        for line in sys.stdin:
            result = measure(*map(int, line.split()))
            print(json.dumps({**result, "peak_mib": peak_mib()}), file=answers, flush=True)
    except Exception as error:
        if not any(kind.__name__ == "InputError" for kind in type(error).__mro__):
            raise
        print(error, file=sys.stderr)  # such as data that cannot be found
        raise SystemExit(2) from error


def limit(args: argparse.Namespace) -> Measure:
    """The entry that measures the machine's peak rates."""
    import limits

    return limits.measure_limits


def run_benchmark(script: str, names: Iterable[str], args: argparse.Namespace, options: Iterable[str] = ()) -> dict:
    """Measure every implementation once a round, after a warm-up of three steps that does not count.

    The implementation that goes first changes from round to round.

    Args:
        script: file of the benchmark, which calls `serve` if `--worker` is given.
        names: of the implementations.
        args: the parsed flags.
        options: further flags for the implementations' processes.

    Returns:
        For each implementation a list of measurements, one per round.

    Raises:
        BenchmarkError: the process of an implementation ended early.
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
                    raise BenchmarkError(
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

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return {"device": name, "device_class": re.sub(r"[^a-z0-9]+", "-", name.lower()), "gpu": name}
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return {"device": f"{name} ({torch.get_num_threads()} threads)", "device_class": "cpu", "gpu": None}


def write(output: Path | None, section: str, result: dict, packages: Iterable[str] = ()) -> None:
    """Write a benchmark's section into the file of this device; drop sections that another device measured."""
    here = machine()
    output = output or RESULTS / f"bench_{here['device_class']}.json"
    old = read_results(output)
    old = old if old.get("device") == here["device"] else {}
    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in ("torch", *packages)}}
    stamp = {"versions": versions, "finished": datetime.now(UTC).isoformat(timespec="seconds")}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**old, **here, section: {**result, **stamp}}, indent=2) + "\n")
    for key, value in result.items():
        if isinstance(value, dict) and key != "rows":
            print(f"{key:26s}", one_line(value))
    print(f"{section} is in {output}")

"""Contests in speed: contestants, each in a process of its own, take turns, so that a disturbance meets all alike.

A benchmark names its contestants. Each is a function of the command line's arguments that prepares what it needs and
returns a turn: a function of a seed and a number of steps (0 for all) that does the work and returns what it measured,
`seconds` at least. A contestant "limit" takes turns too and measures what the machine can do at most.
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
Turn = Callable[[int, int], dict]


class ContestError(Exception):
    """A contest cannot be held."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def build_parser(description: str, steps: int) -> Parser:
    """The flags that all contests share.

    Args:
        description: the first line of the benchmark's docstring.
        steps: default of `--steps`.
    """
    parser = Parser(description=description)
    parser.add_argument("--data_dir", default=os.environ.get("DATA_DIR", str(REPOSITORY / "data")),
                        help="folder with MNIST/raw and text (default: DATA_DIR if it is set, else data)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="counted turns of each contestant, one seed a turn")
    parser.add_argument(
        "--steps", type=int, default=steps, help="steps of a turn; of parts 1 and 2, 0 is a whole epoch"
    )
    parser.add_argument("--output", type=Path, help="JSON file (default: report/results/bench_DEVICE.json)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def parse(parser: Parser, fewest_steps: int = 0) -> argparse.Namespace:
    """The command line; ends with exit code 2 where a number makes no sense."""
    args = parser.parse_args()
    for name, least in (("rounds", 2), ("steps", fewest_steps)):  # one round has no spread
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}, not {getattr(args, name)}")
    if args.output and args.output.is_dir():
        parser.error(f"--output {args.output} is a folder: name a file")
    try:
        sections_of(args.output)
    except ValueError:
        parser.error(f"--output {args.output} is no file of results in JSON: name another one, or remove it")
    return args


def sections_of(file: Path | None) -> dict:
    """What a file of results holds; nothing where there is none.

    Raises:
        ValueError: it is no JSON object in UTF-8.
    """
    content = json.loads(file.read_text()) if file and file.exists() else {}
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no object")
    return content


def command(main: Callable[[], int]) -> int:
    """Run a benchmark; returns its exit code: 0, or 2 after one sentence about a contest that could not be held."""
    try:
        return main()
    except ContestError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        return 2


def serve(contestants: dict[str, Callable[[argparse.Namespace], Turn]], args: argparse.Namespace) -> None:
    """The process of one contestant: a line with a seed and a number of steps on the input, a line of JSON back."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a training prints goes where errors go
    try:
        turn = contestants[args.worker](args)
        for line in sys.stdin:
            result = turn(*map(int, line.split()))
            print(json.dumps({**result, "peak_mib": peak_mib()}), file=answers, flush=True)
    except Exception as error:
        if not any(kind.__name__ == "InputError" for kind in type(error).__mro__):
            raise
        print(error, file=sys.stderr)  # what a part says of data that are not there
        raise SystemExit(2) from error


def limit(args: argparse.Namespace) -> Turn:
    """The contestant that measures what the machine can do."""
    import limits

    return limits.limit_turn


def hold(script: str, names: Iterable[str], args: argparse.Namespace, options: Iterable[str] = ()) -> dict:
    """Hold a contest: a short warm-up turn of each contestant that does not count, and then round after round, each
    begun by the next contestant.

    Args:
        script: the benchmark's file, which calls `serve` where `--worker` is given.
        names: of the contestants, in their order.
        args: of the command line.
        options: further arguments for the contestants.

    Returns:
        For each contestant what it measured, one entry a turn.

    Raises:
        ContestError: a contestant's process ended early; what it said stands above.
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
            first = seed % len(workers)  # nobody always goes first
            for name in [*workers][first:] + [*workers][:first]:
                worker = workers[name]
                worker.stdin.write(f"{seed} {args.steps if seed else 3}\n")
                if not (line := worker.stdout.readline()):
                    raise ContestError(
                        f"the contestant {name} gave up with exit code {worker.wait()}: the reason stands above, or it "
                        "was ended from outside, as for want of memory"
                    )
                if seed:
                    found[name].append(json.loads(line))
                    print(f"round {seed} of {args.rounds}: {name:22s}", short(found[name][-1]), flush=True)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return found


def short(result: dict) -> str:
    """Numbers in a line."""
    values = {name: value for name, value in result.items() if isinstance(value, int | float)}
    return "  ".join(f"{name} {value:,.4g}" for name, value in values.items())


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, minimum and maximum, to five significant digits."""
    values = list(values)
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def table(found: dict[str, list[dict]]) -> dict[str, dict]:
    """`spread` of every number that each contestant measured."""
    return {
        name: {key: spread(turn[key] for turn in turns) for key, value in turns[0].items() if is_number(value)}
        for name, turns in found.items()
    }


def is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def ratios(ours: list[dict], theirs: list[dict], key: str = "seconds") -> dict[str, float]:
    """`spread` of ours over theirs, round by round."""
    return spread(a[key] / b[key] for a, b in zip(ours, theirs, strict=True))


def agree(ours: list[dict], theirs: list[dict], key: str = "loss") -> dict:
    """Whether the mean losses of two contestants differ by no more than their turns do, each with its own seed.

    Returns:
        both means, their difference, the larger range over the seeds, and `agree`.
    """
    losses = [[turn[key] for turn in turns] for turns in (ours, theirs)]
    means = [statistics.mean(values) for values in losses]
    width = max(max(values) - min(values) for values in losses)
    return {"ours": means[0], "theirs": means[1], "difference": abs(means[0] - means[1]), "range_over_seeds": width,
            "agree": abs(means[0] - means[1]) <= width}  # fmt: skip


def peak_mib(process: int | str = "self") -> float | None:
    """The most memory that a process has had resident so far, in MiB; None where that is not to be known."""
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
        # Read while it runs: what the system says afterwards is the parent's, where that is higher.
        while process.poll() is None:
            peak = peak_mib(process.pid) or peak
            time.sleep(0.01)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {"seconds": time.perf_counter() - start, "peak_mib": peak}


def one_epoch(part: str, data_dir: str) -> dict[str, float]:
    """Seconds and peak memory of `train.py --epochs 1` of a part, with its start, its test and its pictures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(REPOSITORY / part / "train.py"), "--epochs", "1", "--data_dir", data_dir]
        return run_whole([*command, "--log_dir", folder])


def help_seconds(part: str, rounds: int = 9) -> dict[str, float]:
    """`spread` of how long `train.py --help` of a part takes."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        command = [sys.executable, str(REPOSITORY / part / "train.py"), "--help"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - start)
    return spread(seconds)


def machine() -> dict:
    """What the results were obtained with; `device_class` is cpu, or the name of the GPU in lower case; without one,
    `gpu` is None."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return {"device": name, "device_class": re.sub(r"[^a-z0-9]+", "-", name.lower()), "gpu": name}
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return {"device": f"{name} ({torch.get_num_threads()} threads)", "device_class": "cpu", "gpu": None}


def write(output: Path | None, section: str, result: dict, packages: Iterable[str] = ()) -> None:
    """Put a benchmark's section into the file of this device; sections of another device in it are dropped."""
    here = machine()
    output = output or RESULTS / f"bench_{here['device_class']}.json"
    old = sections_of(output)
    old = old if old.get("device") == here["device"] else {}
    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in ("torch", *packages)}}
    stamp = {"versions": versions, "finished": datetime.now(UTC).isoformat(timespec="seconds")}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**old, **here, section: {**result, **stamp}}, indent=2) + "\n")
    for key, value in result.items():
        if isinstance(value, dict) and key != "rows":
            print(f"{key:26s}", short(value))
    print(f"{section} is in {output}")

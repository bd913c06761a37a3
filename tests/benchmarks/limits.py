"""Peak rates of the machine, and what a computation needs of them."""

import time

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    """Wait until the GPU, if there is one, has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_limits(seed: int, steps: int) -> dict[str, float]:
    """Best rate of 8 large float32 matrix products and of 8 large copies, in operations and bytes per second.

    A product of n x n matrices counts as 2 n^3 operations, a copy as the bytes that it reads and writes.
    """
    begin = time.perf_counter()
    n, values = (8192, 2**28) if device().type == "cuda" else (2048, 2**26)
    generator = torch.Generator(device()).manual_seed(seed)
    a, b = (torch.randn(n, n, device=device(), generator=generator) for _ in range(2))
    source = torch.ones(values, device=device())
    target = torch.zeros_like(source)
    flops = 2 * n**3 / min(_seconds(lambda: torch.mm(a, b)) for _ in range(8))
    num_bytes = 2 * 4 * values / min(_seconds(lambda: target.copy_(source)) for _ in range(8))
    return {"flops_per_second": flops, "bytes_per_second": num_bytes, "seconds": time.perf_counter() - begin}


def _seconds(work) -> float:
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


class _ByteCounter(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations read and write; views count as none."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        read = {t.data_ptr(): t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        written = {t.data_ptr(): t for t in tree_leaves(outputs) if isinstance(t, torch.Tensor)}
        name = function._schema.name.removeprefix("aten::")
        if name in ("copy_", "fill_", "zero_"):  # which write their first argument without reading it
            read.pop(args[0].data_ptr(), None)
        if not function.is_view and not name.startswith("empty"):
            self.count += sum(t.numel() * t.element_size() for t in [*read.values(), *written.values()])
        return outputs


def count(work) -> dict[str, int]:
    """Operations and bytes of a computation: the operations of its matrix products and convolutions, which are nearly
    all, and the bytes that each operation reads and writes, be it in memory or in a cache."""
    with FlopCounterMode(display=False) as flops:
        work()
    with _ByteCounter() as counter:
        work()
    return {"flops": flops.get_total_flops(), "bytes": counter.count}


def shares(counted: dict[str, int], seconds: float, limit: dict) -> dict[str, float]:
    """Share of the machine's peak rates that a computation reaches.

    Args:
        counted: result of `count`.
        seconds: duration of the computation.
        limit: summary of the entry "limit".

    Returns:
        The counts, and the share of each peak rate in percent; what hits a cache can exceed 100% of the bytes.
    """
    flops, num_bytes = (limit[f"{name}_per_second"]["median"] for name in ("flops", "bytes"))
    return {**counted, "seconds": seconds, "percent_of_flops": round(100 * counted["flops"] / seconds / flops, 1),
            "percent_of_bytes": round(100 * counted["bytes"] / seconds / num_bytes, 1)}  # fmt: skip

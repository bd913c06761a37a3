"""What a training does differently on a CUDA device. The same file in all three parts."""

import os

import torch
from torch import Tensor


def configure_gpu(deterministic: bool) -> None:
    """Choose between speed and reproducibility on a CUDA device; nothing changes on a CPU.

    By default cuDNN tries out which algorithms are fastest, and matrix products and convolutions round their factors to
    the 10 bits of TF32; sums stay in float32. `--deterministic` takes algorithms with the same result in each run,
    and full float32; an operation without one raises a RuntimeError.
    """
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, not deterministic
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not deterministic
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic products; read at the first one
        # Not warn_only=True, with which fused attention would keep its fast algorithm after a warning.
        torch.use_deterministic_algorithms(deterministic)


def keep_on_gpu(dataset, device: torch.device, num_workers: int) -> bool:
    """Move a data set to a CUDA device, so that a batch is one index operation there and no copy from the host.

    It stays where it is if it would take more than a quarter of the free memory, if worker processes read it, or if it
    has no method `to`.

    Returns:
        Whether it is there.
    """
    if device.type != "cuda" or num_workers or not hasattr(dataset, "to"):
        return False
    if dataset.device.type != "cuda":
        if dataset.nbytes > torch.cuda.mem_get_info(device)[0] / 4:
            return False
        dataset.to(device)
    return True


def on_device(indices: Tensor, device: torch.device) -> Tensor:
    """Indices on a device; a copy to a CUDA device runs in the background, from page-locked memory."""
    return indices.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else indices


def compile_options(backend: str | None) -> dict:
    """Arguments of torch.compile: on "cuda", a step is one CUDA graph for each shape of a batch."""
    return {"mode": "reduce-overhead", "dynamic": False} if backend == "cuda" else {}

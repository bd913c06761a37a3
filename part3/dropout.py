"""Dropout that is fast on a CPU as well."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al., 2014), with the same meaning as PyTorch's.

    On a CPU, PyTorch draws a number for each element, which takes longer than the layers around it. Here each draw of
    64 bits serves four elements: one is dropped where its 16 bits, as a number, are among the share p of lowest ones.
    So p is met within 1e-5, and what is kept is scaled for that probability exactly.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or not 0 < self.p < 1 or torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        return _DropoutOnCPU.apply(x, self.p)


class _DropoutOnCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, p: float) -> Tensor:
        dropped = min(max(round(p * 65536), 1), 65535)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        keep = (draws[: x.numel()] >= dropped - 32768).view(x.shape)
        ctx.scale = 65536 / (65536 - dropped)
        ctx.save_for_backward(keep)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (keep,) = ctx.saved_tensors
        return (gradient * keep).mul_(ctx.scale), None

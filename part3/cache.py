"""What generation keeps of the tokens before."""

from torch import Tensor


class LayerCache:
    """Keys and values of one attention layer for the positions that were already computed.

    Args:
        capacity: positions that it can hold.
    """

    def __init__(self, capacity: int):
        self.capacity, self.length = capacity, 0
        self.k = self.v = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add T positions; returns the keys and values of all positions so far, each [B, nh, S, hs]."""
        if self.k is None:
            size = (k.size(0), k.size(1), self.capacity, k.size(3))
            self.k, self.v = k.new_empty(size), v.new_empty(size)
        end = self.length + k.size(2)
        self.k[:, :, self.length : end] = k
        self.v[:, :, self.length : end] = v
        self.length = end
        return self.k[:, :, :end], self.v[:, :, :end]

"""GPT-2: causal self-attention, transformer blocks, the model and text generation."""

from __future__ import annotations  # GPT in the signatures of its own methods

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cache import LayerCache
from config import with_sizes
from dropout import Dropout
from pretrained import load, save
from sampling import ends_with, sample_logits


class NewGELU(nn.Module):
    """GELU in the form that GPT-2 was trained with (Hendrycks and Gimpel, 2016):
    0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention in which each position sees itself and the positions before it (Vaswani et al., 2017):
    softmax(Q K^T / sqrt(hs) + mask) V for each head, with hs = n_embd / n_head.

    Two implementations give the same result: the steps written out, and PyTorch's fused function, which stores no
    [T, T] matrix. The fused one is the default. For dropout on a CPU, PyTorch has no fused kernel; the steps written
    out are faster there and are used instead.

    Args:
        config: has `n_embd`, `n_head`, `attn_pdrop`, `resid_pdrop`, `block_size`, and may have `fused_attention`
            (True if absent).

    Raises:
        ValueError: `n_head` does not divide `n_embd`.
    """

    def __init__(self, config: argparse.Namespace):
        super().__init__()
        if config.n_embd % config.n_head:
            raise ValueError(f"n_embd {config.n_embd} is not a multiple of n_head {config.n_head}")
        self.n_head, self.n_embd = config.n_head, config.n_embd
        self.fused = getattr(config, "fused_attention", True)
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)  # queries, keys and values of all heads
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.attn_dropout = Dropout(config.attn_pdrop)
        self.resid_dropout = Dropout(config.resid_pdrop)
        size = config.block_size
        visible = torch.ones(size, size, dtype=torch.bool, device="cpu").tril()  # on the CPU even for a "meta" model
        self.register_buffer("mask", visible.view(1, 1, size, size), persistent=False)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Attend.

        Args:
            x: [B, T, C], the positions that follow those in the cache.
            cache: keys and values of the earlier positions; those of `x` are appended.

        Returns:
            [B, T, C].
        """
        B, T, C = x.shape
        q, k, v = self.c_attn(x).split(C, dim=2)  # (B, T, C) each
        q, k, v = (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (q, k, v))  # (B, nh, T, hs)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, nh, S, hs), S >= T
        S = k.size(2)
        if self.fused and not (self.training and self.attn_dropout.p > 0 and x.device.type == "cpu"):
            dropout = self.attn_dropout.p if self.training else 0.0
            visible = self.mask[:, :, S - T : S, :S] if 1 < T < S else None  # a single query sees all S positions
            y = F.scaled_dot_product_attention(q, k, v, visible, dropout, is_causal=1 < T == S)  # (B, nh, T, hs)
        else:
            scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-2, -1)  # (B, nh, T, S)
            visible = self.mask[:, :, S - T : S, :S]  # (1, 1, T, S), the queries are the last T of S positions
            scores = scores.masked_fill(~visible, -math.inf)  # (B, nh, T, S)
            weights = scores.softmax(dim=-1)  # (B, nh, T, S), rows sum to 1
            weights = self.attn_dropout(weights)  # (B, nh, T, S)
            y = weights @ v  # (B, nh, T, hs)
        y = y.transpose(1, 2).reshape(B, T, C)  # the heads side by side
        return self.resid_dropout(self.c_proj(y))  # (B, T, C)


class Block(nn.Module):
    """Attention, then a two-layer network. Each takes the layer-normalised input, and its output is added to the input
    (Radford et al., 2019).

    Args:
        config: as in `CausalSelfAttention`; it may also have `layer_norm_epsilon` (1e-5 if absent).
    """

    def __init__(self, config: argparse.Namespace):
        super().__init__()
        epsilon = getattr(config, "layer_norm_epsilon", 1e-5)
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=epsilon)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=epsilon)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(config.n_embd, 4 * config.n_embd),
                "act": NewGELU(),
                "c_proj": nn.Linear(4 * config.n_embd, config.n_embd),
                "dropout": Dropout(config.resid_pdrop),
            }
        )

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """[B, T, C] to [B, T, C]."""
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp.dropout(self.mlp.c_proj(self.mlp.act(self.mlp.c_fc(self.ln_2(x)))))


class GPT(nn.Module):
    """GPT-2 (Radford et al., 2019), with the names of its published parameters.

    Args:
        config: what `get_default_config` returns, with `vocab_size` and `block_size` set, and either `model_type` or
            all of `n_layer`, `n_head`, `n_embd`. It is copied, not changed. `tie_weights` True makes the last layer
            share the weights of the token embedding, as in the published models.

    Attributes:
        config: the copy, with the sizes of the model type filled in.

    Raises:
        ValueError: the config contradicts itself or lacks something.
    """

    def __init__(self, config: argparse.Namespace):
        super().__init__()
        self.config = config = with_sizes(config)
        self.block_size = config.block_size
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "wpe": nn.Embedding(config.block_size, config.n_embd),
                "drop": Dropout(config.embd_pdrop),
                "h": nn.ModuleList([Block(config) for _ in range(config.n_layer)]),
                "ln_f": nn.LayerNorm(config.n_embd, eps=getattr(config, "layer_norm_epsilon", 1e-5)),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if getattr(config, "tie_weights", False):
            self.lm_head.weight = self.transformer.wte.weight
        self._initialise()

    @staticmethod
    def get_default_config() -> argparse.Namespace:
        """A config in which the sizes have yet to be set."""
        return argparse.Namespace(
            model_type=None, n_layer=None, n_head=None, n_embd=None, vocab_size=None, block_size=None,
            embd_pdrop=0.1, resid_pdrop=0.1, attn_pdrop=0.1,
        )  # fmt: skip

    @classmethod
    def from_pretrained(cls, model_type: str | Path, dtype: torch.dtype = torch.float32) -> GPT:
        """GPT-2 with published weights.

        Args:
            model_type: `gpt2`, `gpt2-medium`, `gpt2-large` or `gpt2-xl`, which are downloaded unless they are in the
                cache of huggingface_hub; or the path of a folder with `config.json` and `model.safetensors`. A `Path`
                is always a folder.
            dtype: number format of the weights in memory.

        Returns:
            The model in evaluation mode, on the CPU.

        Raises:
            InputError: the files cannot be found, downloaded or read, or are not those of a GPT-2.
        """
        return load(cls, model_type, dtype)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` in the format of transformers, which can load them."""
        save(self, Path(folder))

    def _initialise(self) -> None:
        """As GPT-2: weights with standard deviation 0.02, zero biases. The layers whose outputs are added to the
        residual stream get 0.02 / sqrt(2 n_layer), because 2 n_layer outputs are summed."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                scale = 1 / math.sqrt(2 * self.config.n_layer) if name.endswith("c_proj") else 1
                nn.init.normal_(module.weight, std=0.02 * scale)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)

    def configure_optimizers(self, train_config: argparse.Namespace, fused: bool = True) -> torch.optim.AdamW:
        """AdamW (Loshchilov and Hutter, 2019). Only the weights of linear layers decay: biases, layer norms and
        embeddings do not.

        Args:
            train_config: has `learning_rate`, `weight_decay`, `betas`.
            fused: update all weights in one kernel. It is fastest, but under a gradient scaler (16-bit mixed precision)
                the gradients are unscaled only inside it, so that they cannot be clipped before.
        """
        linear = {id(module.weight) for module in self.modules() if isinstance(module, nn.Linear)}
        linear.discard(id(self.transformer.wte.weight))  # an embedding, even if the last layer shares it
        parameters = list(self.parameters())
        groups = [
            {"params": [p for p in parameters if id(p) in linear], "weight_decay": train_config.weight_decay},
            {"params": [p for p in parameters if id(p) not in linear], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=train_config.learning_rate, betas=tuple(train_config.betas), fused=fused)

    def forward(self, idx: Tensor) -> Tensor:
        """Logits of the token that follows each position.

        Args:
            idx: tokens, long [B, T] with values 0 .. vocab_size - 1 and T at most block_size.

        Returns:
            [B, T, vocab_size].

        Raises:
            ValueError: T is above block_size.
        """
        return self.lm_head(self._features(idx))

    def _features(self, idx: Tensor, cache: Sequence[LayerCache] | None = None) -> Tensor:
        """Input of the last layer, [B, T, C], for tokens that follow those in the cache."""
        past, T = cache[0].length if cache else 0, idx.size(1)
        if past + T > self.block_size:
            raise ValueError(f"{past + T} tokens are more than the model's block_size of {self.block_size}")
        positions = torch.arange(past, past + T, device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(positions))  # (B, T, C)
        for i, block in enumerate(self.transformer.h):
            x = block(x, cache[i] if cache else None)
        return self.transformer.ln_f(x)

    @torch.no_grad()
    def generate(
        self,
        idx: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        do_sample: bool = False,
        top_k: int | None = None,
        *,
        top_p: float | None = None,
        stop: Sequence[Sequence[int]] = (),
        generator: torch.Generator | None = None,
        use_cache: bool = True,
    ) -> Tensor:
        """Continue sequences, token by token; each is predicted from the last block_size tokens before it.

        Args:
            idx: tokens, long [B, T] with T at least 1; not changed.
            max_new_tokens: how many to add.
            temperature, do_sample, top_k, top_p, generator: as in `sample_logits`.
            stop: sequences of tokens. A row ends once its new tokens end with one of them; it is then padded with its
                last token until all rows have ended.
            use_cache: keep keys and values instead of recomputing them for each token. The result is the same.

        Returns:
            long [B, T + max_new_tokens], or shorter if all rows ended earlier.

        Raises:
            ValueError: `idx` is empty, or an argument is out of range.
        """
        start = idx.size(1)
        finished = torch.zeros(len(idx), dtype=torch.bool, device=idx.device)
        for token in self.stream(idx, max_new_tokens, temperature, do_sample, top_k, top_p=top_p, generator=generator,
                                 use_cache=use_cache):  # fmt: skip
            token = torch.where(finished, idx[:, -1], token)
            idx = torch.cat([idx, token[:, None]], dim=1)
            if stop:
                finished = finished | ends_with(idx[:, start:], stop)
                if finished.all():
                    break
        return idx.clone() if idx.size(1) == start else idx

    @torch.no_grad()
    def stream(
        self,
        idx: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        do_sample: bool = False,
        top_k: int | None = None,
        *,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        use_cache: bool = True,
    ) -> Iterator[Tensor]:
        """The loop of `generate`: yields the next tokens of all rows, long [B], as they are drawn. The model is in
        evaluation mode until the iterator ends or is closed; then its previous mode is restored."""
        if idx.dim() != 2 or idx.size(1) == 0:
            raise ValueError(f"idx must be [B, T] with at least one token to begin with, not {list(idx.shape)}")
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must not be negative, but is {max_new_tokens}")
        was_training = self.training
        self.eval()
        capacity = min(self.block_size, idx.size(1) + max_new_tokens)
        cache = [LayerCache(capacity) for _ in self.transformer.h] if use_cache else None
        try:
            for _ in range(max_new_tokens):
                if cache and idx.size(1) <= self.block_size:
                    x = self._features(idx[:, cache[0].length :], cache)
                else:  # the window has moved: each token has a new position, and cached keys and values are void
                    x = self._features(idx[:, -self.block_size :])
                logits = self.lm_head(x[:, -1])  # (B, V), of the last position
                token = sample_logits(logits, temperature, do_sample, top_k, top_p, generator)  # (B,)
                idx = torch.cat([idx, token[:, None]], dim=1)  # (B, T + 1)
                yield token
        finally:
            self.train(was_training)

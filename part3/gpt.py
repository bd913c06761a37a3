"""GPT-2: causal self-attention, transformer blocks, the model and text generation."""

from __future__ import annotations  # GPT in the signatures of its own methods

import argparse
import copy
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from args import SIZES
from pretrained import load, save
from run import InputError, read_checkpoint
from sampling import check_finite, divide_by_temperature, keep_top_k, keep_top_p
from vocabulary import Vocabulary, from_state

WANTED = ("state_dict", "optimizer_states", "gpt_config", "vocabulary", "flags", "text_sha256", "epoch", "global_step",
          "callbacks")  # fmt: skip


class NewGELU(nn.Module):
    """GELU in the form that GPT-2 was trained with (Hendrycks and Gimpel, 2016):
    0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al., 2014) that is fast on a CPU as well, where PyTorch's takes longer than the layers
    around it: each random number of 64 bits serves four elements.

    An element is dropped if its 16 bits, as an integer, are among the lowest round(65536 p) of the 65,536 values. The
    probability thus differs from p by less than 1e-5; kept elements are scaled by 1 / (1 - this probability).
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


class LayerCache:
    """Keys and values of one attention layer for the positions that were already computed, at most `capacity`."""

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


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention in which each position sees itself and the positions before it (Vaswani et al., 2017):
    softmax(Q K^T / sqrt(hs) + mask) V for each head, with hs = n_embd / n_head.

    `attend` has the steps. `attend_fused` gives the same result with PyTorch's fused function, which stores no [T, T]
    matrix. It is the default; but for dropout on a CPU, where PyTorch has no fused kernel, the steps are faster.

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
        """[B, T, C] to [B, T, C], for positions that follow those in the cache; theirs are appended to it."""
        B, T, C = x.shape
        q, k, v = self.c_attn(x).split(C, dim=2)  # (B, T, C) each
        q, k, v = (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (q, k, v))  # (B, nh, T, hs)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, nh, S, hs), S >= T
        drops_on_cpu = self.training and self.attn_dropout.p > 0 and x.device.type == "cpu"
        attend = self.attend_fused if self.fused and not drops_on_cpu else self.attend
        y = attend(q, k, v)  # (B, nh, T, hs)
        y = y.transpose(1, 2).reshape(B, T, C)  # the heads side by side
        return self.resid_dropout(self.c_proj(y))  # (B, T, C)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The steps of question 3.2.

        Args:
            q: queries of the last T positions, [B, nh, T, hs].
            k, v: keys and values of all S positions, [B, nh, S, hs] each; S is T without a cache.

        Returns:
            [B, nh, T, hs].
        """
        T, S = q.size(2), k.size(2)
        scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-2, -1)  # (B, nh, T, S)
        visible = self.mask[:, :, S - T : S, :S]  # (1, 1, T, S)
        scores = scores.masked_fill(~visible, -math.inf)  # (B, nh, T, S)
        weights = scores.softmax(dim=-1)  # (B, nh, T, S), rows sum to 1
        weights = self.attn_dropout(weights)  # (B, nh, T, S)
        return weights @ v  # (B, nh, T, hs)

    def attend_fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same as `attend` in one call."""
        T, S = q.size(2), k.size(2)
        dropout = self.attn_dropout.p if self.training else 0.0
        visible = self.mask[:, :, S - T : S, :S] if 1 < T < S else None  # a single query sees all S positions
        return F.scaled_dot_product_attention(q, k, v, visible, dropout, is_causal=1 < T == S)  # (B, nh, T, hs)


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
        self.mlp = nn.ModuleDict({
            "c_fc": nn.Linear(config.n_embd, 4 * config.n_embd),
            "act": NewGELU(),
            "c_proj": nn.Linear(4 * config.n_embd, config.n_embd),
            "dropout": Dropout(config.resid_pdrop),
        })  # fmt: skip

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """[B, T, C] to [B, T, C]."""
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp.dropout(self.mlp.c_proj(self.mlp.act(self.mlp.c_fc(self.ln_2(x)))))


class GPT(nn.Module):
    """GPT-2 (Radford et al., 2019), with the names of its published parameters.

    Args:
        config: what `get_default_config` returns, with `vocab_size` and `block_size` set, and either `model_type` or
            all of `n_layer`, `n_head`, `n_embd`. It is copied, not changed; the attribute `config` has all sizes.
            `tie_weights` True makes the last layer share the weights of the token embedding, as in published models.

    Raises:
        ValueError: the config contradicts itself or lacks something.
    """

    def __init__(self, config: argparse.Namespace):
        super().__init__()
        self.config = config = with_sizes(config)
        self.block_size = config.block_size
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(config.vocab_size, config.n_embd),
            "wpe": nn.Embedding(config.block_size, config.n_embd),
            "drop": Dropout(config.embd_pdrop),
            "h": nn.ModuleList([Block(config) for _ in range(config.n_layer)]),
            "ln_f": nn.LayerNorm(config.n_embd, eps=getattr(config, "layer_norm_epsilon", 1e-5)),
        })  # fmt: skip
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if getattr(config, "tie_weights", False):
            self.lm_head.weight = self.transformer.wte.weight
        self._share_mask()
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
        """GPT-2 with published weights, in evaluation mode, on the CPU.

        Args:
            model_type: `gpt2`, `gpt2-medium`, `gpt2-large` or `gpt2-xl`, which are downloaded unless they are in the
                cache of huggingface_hub; or a folder with `config.json` and `model.safetensors`, as a `Path` always is.
            dtype: number format of the weights in memory.

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
                residual = name.endswith("c_proj")
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * self.config.n_layer) if residual else 0.02)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)

    def _share_mask(self) -> None:
        """All layers have the mask of the first. Another kind of attention may have none."""
        layers = [block.attn for block in self.transformer.h if hasattr(block.attn, "mask")]
        for layer in layers:
            layer.mask = layers[0].mask

    def _apply(self, *args, **kwargs) -> GPT:
        """Moves the model to another device; PyTorch would make a mask for each layer there."""
        super()._apply(*args, **kwargs)
        self._share_mask()
        return self

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
        """Logits, [B, T, vocab_size], of the token that follows each position.

        Args:
            idx: tokens, long [B, T] with values 0 .. vocab_size - 1; T is at most block_size, else a ValueError is
                raised.
        """
        return self.lm_head(self.features(idx))

    def features(self, idx: Tensor, cache: list[LayerCache] | None = None) -> Tensor:
        """Input of the last layer, [B, T, C], for tokens that follow those in the cache, one for each layer."""
        past, T = cache[0].length if cache else 0, idx.size(1)
        if past + T > self.block_size:
            raise ValueError(f"{past + T} tokens are more than the model's block_size of {self.block_size}")
        positions = torch.arange(past, past + T, device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(positions))  # (B, T, C)
        for i, block in enumerate(self.transformer.h):
            x = block(x, cache[i] if cache else None)
        return self.transformer.ln_f(x)

    @torch.no_grad()
    def generate(self, idx: Tensor, max_new_tokens: int, temperature: float = 1.0, do_sample: bool = False,
                 top_k: int | None = None, *, top_p: float | None = None, generator: torch.Generator | None = None,
                 use_cache: bool = True) -> Tensor:  # fmt: skip
        """Continue sequences, token by token; each is predicted from the last block_size tokens before it (question
        3.3).

        Args:
            idx: tokens, long [B, T] with T at least 1; not changed.
            max_new_tokens: how many to add.
            temperature: the logits are divided by it; 0 means greedy.
            do_sample: draw from the softmax of the logits; else take the most probable token.
            top_k: draw from the k most probable tokens, k at least 1; None: from all.
            top_p: of them, draw from the fewest whose probabilities sum to at least p, 0 < p <= 1.
            generator: where the random numbers come from; PyTorch's own by default.
            use_cache: keep keys and values instead of recomputing them for each token. The result is the same.

        Returns:
            long [B, T + max_new_tokens].

        Raises:
            ValueError: `idx` is empty, or an argument is out of range.
            InputError: a logit is not finite (checked on a CPU only).
        """
        if idx.dim() != 2 or idx.size(1) == 0:
            raise ValueError(f"idx must be [B, T] with at least one token to begin with, not {list(idx.shape)}")
        in_range = {"max_new_tokens": max_new_tokens >= 0, "temperature": 0 <= temperature < math.inf,
                    "top_k": top_k is None or top_k >= 1, "top_p": top_p is None or 0 < top_p <= 1}  # fmt: skip
        if wrong := [name for name, right in in_range.items() if not right]:
            raise ValueError(f"{wrong[0]} is out of range")
        capacity = min(self.block_size, idx.size(1) + max_new_tokens)
        cache = [LayerCache(capacity) for _ in self.transformer.h] if use_cache else None
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            for _ in range(max_new_tokens):
                window = idx[:, -self.block_size :]  # (B, T)
                if idx.size(1) > self.block_size:  # each token has a new position, so that the cache is void
                    cache = None
                new = window[:, cache[0].length :] if cache else window  # tokens that are not in the cache
                logits = self.lm_head(self.features(new, cache)[:, -1])  # (B, V), of the last position
                check_finite(logits)
                if do_sample and temperature > 0:
                    logits = divide_by_temperature(logits, temperature)
                    logits = keep_top_k(logits, top_k) if top_k else logits
                    logits = keep_top_p(logits, top_p) if top_p else logits
                    probs = logits.softmax(dim=-1)  # (B, V)
                    token = torch.multinomial(probs, num_samples=1, generator=generator)  # (B, 1)
                else:
                    token = logits.argmax(dim=-1, keepdim=True)  # (B, 1)
                idx = torch.cat([idx, token], dim=1)  # (B, T + 1)
        finally:
            for module, training in modes.items():
                module.training = training
        return idx if max_new_tokens else idx.clone()


def with_sizes(config: argparse.Namespace) -> argparse.Namespace:
    """A copy of a config with `n_layer`, `n_head` and `n_embd` filled in from its model type. Raises ValueError where
    the config contradicts itself or lacks something."""
    config = copy.deepcopy(config)
    model_type = getattr(config, "model_type", None)
    given = [getattr(config, name, None) is not None for name in ("n_layer", "n_head", "n_embd")]
    if model_type not in (None, *SIZES):
        raise ValueError(f"unknown model_type {model_type}: choose one of {', '.join(SIZES)}")
    if any(given) if model_type else not all(given):
        raise ValueError("give either model_type, or all of n_layer, n_head and n_embd")
    if model_type:
        config.n_layer, config.n_head, config.n_embd = SIZES[model_type]
    for name in ("vocab_size", "block_size"):
        if getattr(config, name, None) is None:
            raise ValueError(f"the config lacks {name}")
    return config


def load_gpt(path: Path) -> tuple[GPT, Vocabulary, dict]:
    """Model of a checkpoint, on the CPU and in evaluation mode; its vocabulary; and the checkpoint's content. Raises
    InputError where the file cannot be read, or is not a checkpoint of this model."""
    checkpoint = read_checkpoint(path, WANTED, part="part 3")
    try:
        model = GPT(argparse.Namespace(**checkpoint["gpt_config"]))
        model.load_state_dict({name.removeprefix("model."): t for name, t in checkpoint["state_dict"].items()})
        vocabulary = from_state(checkpoint["vocabulary"])
    except Exception as error:  # tokenizers raises bare Exceptions
        raise InputError(f"{path} is a checkpoint of another model: choose one that part 3 wrote") from error
    return model.eval(), vocabulary, checkpoint

"""Functional style: einsum in attention, a bool mask made on the spot, sampling by sorted logits."""

import argparse

import torch
from torch import nn
from torch.nn import functional as F


class CausalSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.n_head
        self.query, self.key, self.value = (nn.Linear(config.n_embd, config.n_embd) for _ in range(3))
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.p, self.resid_p = config.attn_pdrop, config.resid_pdrop

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)) for layer in (self.query, self.key, self.value))
        scores = torch.einsum("bihd,bjhd->bhij", q * q.size(-1) ** -0.5, k)
        hidden = torch.ones(x.size(1), x.size(1), dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        y = torch.einsum("bhij,bjhd->bihd", F.dropout(weights, self.p, self.training), v)
        return F.dropout(self.proj(y.flatten(2)), self.resid_p, self.training)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        d = config.n_embd
        self.ln_1, self.ln_2, self.attn = nn.LayerNorm(d), nn.LayerNorm(d), CausalSelfAttention(config)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(approximate="tanh"), nn.Linear(4 * d, d))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    @staticmethod
    def get_default_config():
        sizes = dict.fromkeys(("model_type", "n_layer", "n_head", "n_embd", "vocab_size", "block_size"))
        return argparse.Namespace(**sizes, embd_pdrop=0.1, resid_pdrop=0.1, attn_pdrop=0.1)

    def __init__(self, config):
        super().__init__()
        self.block_size = config.block_size
        self.tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.positions = nn.Parameter(0.02 * torch.randn(1, config.block_size, config.n_embd))
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.n_layer)))
        self.ln_f, self.lm_head = nn.LayerNorm(config.n_embd), nn.Linear(config.n_embd, config.vocab_size, bias=False)

    def forward(self, idx):
        return self.lm_head(self.ln_f(self.blocks(self.tokens(idx) + self.positions[:, : idx.size(1)])))

    @torch.no_grad()
    def generate(self, idx, max_new_tokens, temperature=1.0, do_sample=False, top_k=None):
        for _ in range(max_new_tokens):
            logits = self.forward(idx[:, -self.block_size :])[:, -1]
            if do_sample:
                ranks = logits.argsort(descending=True).argsort()
                if top_k:
                    logits = logits.where(ranks < top_k, -torch.inf)
                new = torch.multinomial(torch.softmax(logits / temperature, -1), 1).squeeze(1)
            else:
                new = logits.argmax(-1)
            idx = torch.hstack([idx, new[:, None]])
        return idx

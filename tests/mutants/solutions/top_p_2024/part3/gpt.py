import numpy as np
import argparse
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class BERTGELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-8):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + self.eps) * self.weight


class CausalSelfAttention(nn.Module):
    def __init__(self, config, debug=False):
        super().__init__()
        assert config.n_embd % config.n_head == 0
        self.debug = debug
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.use_flash_attn = config.use_flash_attn
        self.attn_dropout = nn.Dropout(config.attn_pdrop)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)
        mask = torch.tril(torch.ones(config.block_size, config.block_size))
        self.register_buffer("mask", mask.view(1, 1, config.block_size, config.block_size))
        self.n_head = config.n_head
        self.n_embd = config.n_embd
        self.config = config
        if not config.abs_emb:
            dim = config.n_embd // config.n_head
            self.register_buffer("inv_freq", 1.0 / (10000 ** (torch.arange(0, dim, 2).float() / dim)))

    def apply_rotary_emb(self, xq, xk, T):
        angle = torch.outer(torch.arange(T, device=xq.device).float(), self.inv_freq)
        sin, cos = angle.sin().repeat(1, 2), angle.cos().repeat(1, 2)

        def turn(x):
            a, b = x.chunk(2, dim=-1)
            return x * cos + torch.cat((-b, a), dim=-1) * sin

        return turn(xq), turn(xk)

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        if not self.config.abs_emb:
            q, k = self.apply_rotary_emb(q, k, T)
        if self.use_flash_attn:
            dropout = self.attn_dropout.p if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=dropout, is_causal=True)
        else:
            att = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
            att += torch.triu(torch.full((T,T), float('-inf'), device=att.device), diagonal=1)
            att = F.softmax(att, dim=-1)
            att = self.attn_dropout(att)
            y = att @ v
        y = y.transpose(1, 2).contiguous().view(B, T, C)
        y = self.resid_dropout(self.c_proj(y))
        return y if not self.debug else {"att_probs": att, "q": q, "k": k, "v": v}


class TransformerDecoderBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer_norm_1 = RMSNorm(config.n_embd)
        self.self_attention = CausalSelfAttention(config)
        self.layer_norm_2 = RMSNorm(config.n_embd)
        self.mlpf = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd),
            BERTGELU(),
            nn.Linear(4 * config.n_embd, config.n_embd),
            nn.Dropout(config.resid_pdrop),
        )

    def forward(self, x):
        x = x + self.self_attention(self.layer_norm_1(x))
        return x + self.mlpf(self.layer_norm_2(x))


class GPT(nn.Module):
    @staticmethod
    def get_default_config():
        C = argparse.Namespace()
        C.model_type = "gpt"
        C.n_layer = C.n_head = C.n_embd = None
        C.vocab_size = C.block_size = None
        C.embd_pdrop = C.resid_pdrop = C.attn_pdrop = 0.1
        C.abs_emb = C.use_flash_attn = False
        return C

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.block_size = config.block_size
        params_given = all([config.n_layer is not None, config.n_head is not None, config.n_embd is not None])
        assert (config.model_type is not None) ^ params_given
        if config.model_type is not None:
            sizes = {"gpt2": (12, 12, 768), "gpt-mini": (6, 6, 192), "gpt-nano": (3, 3, 48)}
            config.n_layer, config.n_head, config.n_embd = sizes[config.model_type]
        layers = dict(
            w_token_emb=nn.Embedding(config.vocab_size, config.n_embd),
            drop=nn.Dropout(config.embd_pdrop),
            h=nn.ModuleList([TransformerDecoderBlock(config) for _ in range(config.n_layer)]),
            ln_f=RMSNorm(config.n_embd),
        )
        if config.abs_emb:
            layers["w_pos_emb"] = nn.Embedding(config.block_size, config.n_embd)
        self.transformer = nn.ModuleDict(layers)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.apply(self._init_weights)
        print(f"number of parameters: {sum(p.numel() for p in self.parameters()) / 1e6:.2f}M")

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)

    def forward(self, idx):
        b, t = idx.size()
        assert t <= self.block_size, f"Cannot forward sequence of length {t}, block size is only {self.block_size}"
        x = self.transformer.w_token_emb(idx)
        if self.config.abs_emb:
            x = x + self.transformer.w_pos_emb(torch.arange(t, device=idx.device).unsqueeze(0))
        x = self.transformer.drop(x)
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))

    @torch.inference_mode()
    def generate(self, idx, max_new_tokens, temperature=1.0, do_sample=False, top_k=None, top_p=0.6):
        assert not (top_k and top_p)
        for _ in range(max_new_tokens):
            idx_cond = idx if idx.size(1) <= self.block_size else idx[:, -self.block_size:]
            logits = self.forward(idx_cond)
            logits = logits[:, -1, :] / temperature
            if not do_sample:
                idx_next = torch.argmax(logits, dim=-1, keepdim=True)
            else:
                if top_k is not None:
                    v, _ = torch.topk(logits, top_k)
                    logits[logits < v[:, [-1]]] = -float('inf')
                if top_p is not None and top_p < 1.0:
                    sp, si = torch.sort(F.softmax(logits, -1), descending=True, dim=-1)
                    cum = torch.cumsum(sp, dim=-1)
                    rm = cum > top_p
                    rm = torch.cat([torch.zeros_like(rm[:, :1]), rm[:, :-1]], dim=-1)
                    r2 = torch.zeros_like(rm).scatter_(1, si, rm)
                    logits[r2] = float('-inf')
                probs = F.softmax(logits, dim=-1)
                idx_next = torch.multinomial(probs, 1)
            idx = torch.cat((idx, idx_next), dim=1)
        return idx

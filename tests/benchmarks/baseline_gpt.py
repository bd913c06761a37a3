"""The plain pipeline of part 3: what the course's template and the straightforward solution of it do.

Attention and GELU are written out, generation recomputes the whole context for each token, a Lightning module logs
loss and accuracy in each step, and loader processes encode each window character by character. The parameters have
GPT-2's names, so that both pipelines start from the same weights.
"""

import math

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset


class PlainGELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class PlainAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, self.n_embd = config.n_head, config.n_embd
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.attn_dropout, self.resid_dropout = nn.Dropout(config.attn_pdrop), nn.Dropout(config.resid_pdrop)
        ones = torch.ones(config.block_size, config.block_size)
        self.register_buffer("mask", torch.tril(ones).view(1, 1, *ones.shape), persistent=False)

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        q, k, v = (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (q, k, v))
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.mask[:, :, :T, :T] == 0, float("-inf"))
        y = self.attn_dropout(F.softmax(att, dim=-1)) @ v
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C)))


class PlainBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(config.n_embd), nn.LayerNorm(config.n_embd)
        self.attn = PlainAttention(config)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(config.n_embd, 4 * config.n_embd),
                "c_proj": nn.Linear(4 * config.n_embd, config.n_embd),
                "act": PlainGELU(),
                "dropout": nn.Dropout(config.resid_pdrop),
            }
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp.dropout(self.mlp.c_proj(self.mlp.act(self.mlp.c_fc(self.ln_2(x)))))


class PlainGPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.block_size = config.block_size
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "wpe": nn.Embedding(config.block_size, config.n_embd),
                "drop": nn.Dropout(config.embd_pdrop),
                "h": nn.ModuleList([PlainBlock(config) for _ in range(config.n_layer)]),
                "ln_f": nn.LayerNorm(config.n_embd),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)

    def forward(self, idx):
        positions = torch.arange(idx.size(1), device=idx.device).unsqueeze(0)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(positions))
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))

    @torch.inference_mode()
    def generate(self, idx, max_new_tokens):
        """Greedy."""
        for _ in range(max_new_tokens):
            logits = self(idx[:, -self.block_size :])[:, -1, :]
            probs = F.softmax(logits, dim=-1)
            idx = torch.cat((idx, torch.argmax(probs, dim=-1, keepdim=True)), dim=1)
        return idx


class Characters(Dataset):
    """All windows of a text."""

    def __init__(self, text: str, string_to_index: dict[str, int], block_size: int):
        self.text, self.string_to_index, self.block_size = text, string_to_index, block_size

    def __len__(self):
        return len(self.text) - self.block_size

    def __getitem__(self, i):
        tokens = [self.string_to_index[c] for c in self.text[i : i + self.block_size + 1]]
        return torch.tensor(tokens[:-1]), torch.tensor(tokens[1:])


class PlainModule(pl.LightningModule):
    def __init__(self, model: PlainGPT, config, dataset: Characters, num_workers: int):
        super().__init__()
        self.model, self.config, self.dataset, self.num_workers = model, config, dataset, num_workers

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=self.config.train_batch_size, shuffle=True,
                          num_workers=self.num_workers, pin_memory=torch.cuda.is_available())  # fmt: skip

    def configure_optimizers(self):
        decay = {m.weight for m in self.modules() if isinstance(m, nn.Linear)}
        groups = [
            {"params": [p for p in self.parameters() if p in decay], "weight_decay": self.config.weight_decay},
            {"params": [p for p in self.parameters() if p not in decay], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.learning_rate, betas=self.config.betas)

    def training_step(self, batch, batch_idx):
        idx, targets = batch
        logits = self.model(idx)
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
        accuracy = (F.softmax(logits, dim=-1).argmax(dim=-1) == targets).float().mean()
        self.log("train_loss", loss.item())
        self.log("train_acc", accuracy.item())
        return loss


def trainer(folder: str, steps: int, clip: float, callbacks: list[pl.Callback]) -> pl.Trainer:
    """A trainer as the template sets it up."""
    return pl.Trainer(default_root_dir=folder, accelerator="auto", devices=1, max_steps=steps, gradient_clip_val=clip,
                      log_every_n_steps=1, callbacks=callbacks, enable_progress_bar=False, enable_checkpointing=False,
                      enable_model_summary=False)  # fmt: skip

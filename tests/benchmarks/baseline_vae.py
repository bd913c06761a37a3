"""The plain pipeline of part 1: what the course's template and the straightforward solution of it do.

Loader processes transform one image at a time with torchvision; the training is eager float32 in PyTorch's default
memory layout; Lightning logs four values per step. The networks are those of part 1, so that both pipelines train the
same model.
"""

import math

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, random_split
from torchvision import datasets, transforms
from torchvision.utils import make_grid, save_image

from cnn_encoder_decoder import CNNDecoder, CNNEncoder


def discretize(x, num_values):
    return (x * num_values).long().clamp_(max=num_values - 1)


def loaders(root: str, batch_size: int, num_workers: int):
    """Loaders of training and validation images."""
    transform = transforms.Compose([transforms.ToTensor(), lambda x: discretize(x, 16)])
    dataset = datasets.MNIST(root, train=True, transform=transform)
    train, val = random_split(dataset, [54_000, 6_000], generator=torch.Generator().manual_seed(42))
    common = {"batch_size": batch_size, "num_workers": num_workers, "pin_memory": torch.cuda.is_available()}
    return DataLoader(train, shuffle=True, **common), DataLoader(val, **common)


class PlainVAE(pl.LightningModule):
    def __init__(self, num_filters: int, z_dim: int, lr: float):
        super().__init__()
        self.z_dim, self.lr = z_dim, lr
        self.encoder = CNNEncoder(num_filters=num_filters, z_dim=z_dim)
        self.decoder = CNNDecoder(num_filters=num_filters, z_dim=z_dim)

    def forward(self, imgs):
        mean, log_std = self.encoder(imgs)
        std = torch.exp(log_std)
        assert not (std < 0).any().item()
        z = mean + torch.randn_like(std) * std
        logits = self.decoder(z)
        L_rec = F.cross_entropy(logits, imgs.squeeze(1), reduction="none").sum(dim=[1, 2]).mean()
        L_reg = (0.5 * (torch.exp(2 * log_std) + mean**2 - 1 - 2 * log_std).sum(dim=-1)).mean()
        bpd = (L_rec + L_reg) * math.log2(math.e) / math.prod(imgs.shape[1:])
        return L_rec, L_reg, bpd

    @torch.no_grad()
    def sample(self, batch_size):
        z = torch.randn(batch_size, self.z_dim, device=self.device)
        probs = torch.softmax(self.decoder(z), dim=1).permute(0, 2, 3, 1)
        return torch.multinomial(probs.reshape(-1, 16), 1).reshape(batch_size, 1, 28, 28)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self._step(batch, "val")

    def _step(self, batch, mode):
        L_rec, L_reg, bpd = self.forward(batch[0])
        self.log(f"{mode}_reconstruction_loss", L_rec, on_step=False, on_epoch=True)
        self.log(f"{mode}_regularization_loss", L_reg, on_step=False, on_epoch=True)
        self.log(f"{mode}_ELBO", L_rec + L_reg, on_step=False, on_epoch=True)
        self.log(f"{mode}_bpd", bpd, on_step=False, on_epoch=True)
        return bpd


class PlainSamples(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        grid = make_grid(pl_module.sample(64).float() / 15, nrow=8)
        trainer.logger.experiment.add_image("Samples", grid, global_step=trainer.current_epoch)
        save_image(grid, f"{trainer.logger.log_dir}/samples.png")


def trainer(folder: str, extra: list[Callback]) -> pl.Trainer:
    """A trainer as the template sets it up, for one epoch."""
    checkpoint = ModelCheckpoint(save_weights_only=True, mode="min", monitor="val_bpd")
    return pl.Trainer(default_root_dir=folder, accelerator="auto", devices=1, max_epochs=1, num_sanity_val_steps=0,
                      callbacks=[checkpoint, PlainSamples(), *extra], enable_progress_bar=False,
                      enable_model_summary=False)  # fmt: skip

"""The plain pipeline of part 2: what the course's template and the straightforward solution of it do.

Loader processes transform one image at a time with torchvision; the training is eager float32 in PyTorch's default
memory layout; each step reads every loss from the device. The networks are those of part 2, so that both
pipelines train the same model.
"""

from collections import deque

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from models import ConvDecoder, ConvEncoder, Discriminator


def loader(root: str, batch_size: int, num_workers: int) -> DataLoader:
    """Loader of the training images."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    dataset = datasets.MNIST(root, train=True, transform=transform)
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers,
                      pin_memory=torch.cuda.is_available())  # fmt: skip


class PlainAAE(nn.Module):
    def __init__(self, z_dim: int):
        super().__init__()
        self.encoder, self.decoder, self.discriminator = ConvEncoder(z_dim), ConvDecoder(z_dim), Discriminator(z_dim)

    def forward(self, x):
        z = self.encoder(x)
        return self.decoder(z), z

    def loss_autoencoder(self, x, recon_x, z_fake, lambda_):
        fake = self.discriminator(z_fake)
        gen_loss = F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))
        recon_loss = F.mse_loss(recon_x, x)
        ae_loss = lambda_ * recon_loss + (1 - lambda_) * gen_loss
        return ae_loss, {"gen_loss": gen_loss, "recon_loss": recon_loss, "ae_loss": ae_loss}

    def loss_discriminator(self, z_fake):
        real, fake = self.discriminator(torch.randn_like(z_fake)), self.discriminator(z_fake)
        loss_real = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        loss_fake = F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        disc_loss = (loss_real + loss_fake) / 2
        accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
        return disc_loss, {"disc_loss": disc_loss, "loss_real": loss_real, "loss_fake": loss_fake, "accuracy": accuracy}


class PlainLogger:
    """Running means over 50 steps."""

    def __init__(self, writer, name: str):
        self.writer, self.name, self.step, self.values = writer, name, 0, {}

    def add_values(self, values):
        self.step += 1
        for key, value in values.items():
            window = self.values.setdefault(key, deque(maxlen=50))
            window.append(value.item())
            if self.step % 50 == 0:
                self.writer.add_scalar(f"{self.name}/{key}", sum(window) / len(window), self.step)


def optimizers(model: PlainAAE, ae_lr: float, d_lr: float):
    autoencoder = [*model.encoder.parameters(), *model.decoder.parameters()]
    return (torch.optim.Adam(autoencoder, lr=ae_lr, betas=(0.5, 0.999)),
            torch.optim.SGD(model.discriminator.parameters(), lr=d_lr))  # fmt: skip


def train(model, batches, logger_ae, logger_disc, optimizer_ae, optimizer_disc, lambda_: float) -> None:
    """One epoch."""
    model.train()
    device = next(model.parameters()).device
    for x, _ in batches:
        x = x.to(device)
        recon_x, z_fake = model(x)
        ae_loss, values = model.loss_autoencoder(x, recon_x, z_fake, lambda_)
        optimizer_ae.zero_grad()
        ae_loss.backward()
        optimizer_ae.step()
        logger_ae.add_values(values)
        disc_loss, values = model.loss_discriminator(z_fake.detach())
        optimizer_disc.zero_grad()
        disc_loss.backward()
        optimizer_disc.step()
        logger_disc.add_values(values)

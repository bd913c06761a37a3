"""Functional style: a strided encoder of two layers, cross entropies written out, three outputs of forward."""

import torch
from torch import nn
from torch.nn import functional as F


class ConvEncoder(nn.Module):
    def __init__(self, z_dim: int):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 16, 4, 2, 1), nn.Conv2d(16, 32, 4, 2, 1)
        self.out = nn.Linear(32 * 49, z_dim)

    def forward(self, x):
        return self.out(F.gelu(self.c2(F.gelu(self.c1(x)))).flatten(1))

    @property
    def device(self):
        return self.out.weight.device


class ConvDecoder(nn.Module):
    def __init__(self, z_dim: int):
        super().__init__()
        self.inp = nn.Linear(z_dim, 32 * 49)
        self.d1, self.d2 = nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ConvTranspose2d(16, 1, 4, 2, 1)

    def forward(self, z):
        return torch.tanh(self.d2(F.gelu(self.d1(F.gelu(self.inp(z)).unflatten(1, (32, 7, 7))))))


class Discriminator(nn.Module):
    def __init__(self, z_dim: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in ((z_dim, 64), (64, 32), (32, 16), (16, 1)))

    def forward(self, z):
        for layer in self.layers[:-1]:
            z = F.leaky_relu(layer(z), 0.2)
        return self.layers[-1](z)

    @property
    def device(self):
        return self.layers[0].weight.device


class AdversarialAE(nn.Module):
    def __init__(self, z_dim: int = 8):
        super().__init__()
        self.z_dim = z_dim
        self.encoder, self.decoder, self.discriminator = ConvEncoder(z_dim), ConvDecoder(z_dim), Discriminator(z_dim)

    def forward(self, x):
        z = self.encoder(x)
        return self.decoder(z), z, self.discriminator(z)

    def get_loss_autoencoder(self, x, recon_x, z_fake, lambda_=1):
        gen_loss = -F.logsigmoid(self.discriminator(z_fake)).mean()
        recon_loss = (x - recon_x).square().mean()
        loss = torch.lerp(gen_loss, recon_loss, float(lambda_))
        return loss, {"gen_loss": gen_loss.item(), "recon_loss": recon_loss.item(), "ae_loss": loss.item()}

    def get_loss_discriminator(self, z_fake):
        z_fake = z_fake.detach()
        real, fake = self.discriminator(torch.randn_like(z_fake)), self.discriminator(z_fake)
        loss_real, loss_fake = F.softplus(-real).mean(), F.softplus(fake).mean()
        loss = loss_real + loss_fake
        hits = (real >= 0).sum() + (fake < 0).sum()
        names = {"disc_loss": loss.item(), "loss_real": loss_real.item(), "loss_fake": loss_fake.item()}
        return loss, {**names, "accuracy": hits.item() / (len(real) + len(fake))}

    @torch.no_grad()
    def sample(self, batch_size):
        return self.decoder(torch.empty(batch_size, self.z_dim, device=self.device).normal_())

    @property
    def device(self):
        return self.encoder.device

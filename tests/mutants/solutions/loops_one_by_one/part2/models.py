import numpy as np
import math
import torch
import torch.nn as nn
import torch.nn.functional as F


class ConvEncoder(nn.Module):
    def __init__(self, z_dim):
        """Encoder: images to codes.

        Inputs:
            z_dim - size of the latent space
        """
        super(ConvEncoder, self).__init__()
        c_hid = 32
        self.net = nn.Sequential(
            nn.Conv2d(1, c_hid, kernel_size=3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(c_hid, c_hid, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c_hid, 2 * c_hid, kernel_size=3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(2 * c_hid, 2 * c_hid, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * c_hid, 2 * c_hid, kernel_size=3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * 16 * c_hid, z_dim),
        )

    def forward(self, x):
        """x: images [B, C, H, W] in [-1, 1]; returns codes [B, z_dim]."""
        x = x.float()
        z = self.net(x)
        return z

    @property
    def device(self):
        return next(self.parameters()).device


class ConvDecoder(nn.Module):
    def __init__(self, z_dim):
        """Decoder: codes to images."""
        super(ConvDecoder, self).__init__()
        c_hid = 32
        self.linear = nn.Sequential(nn.Linear(z_dim, 2 * 16 * c_hid), nn.ReLU())
        self.net = nn.Sequential(
            nn.ConvTranspose2d(2 * c_hid, 2 * c_hid, kernel_size=3, output_padding=0, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(2 * c_hid, 2 * c_hid, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * c_hid, c_hid, kernel_size=3, output_padding=1, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(c_hid, c_hid, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(c_hid, 1, kernel_size=3, output_padding=1, padding=1, stride=2),
            nn.Tanh(),
        )

    def forward(self, z):
        """z: codes [B, z_dim]; returns images [B, 1, 28, 28]."""
        x = self.linear(z)
        x = x.reshape(x.shape[0], -1, 4, 4)
        recon_x = self.net(x)
        return recon_x


class Discriminator(nn.Module):
    def __init__(self, z_dim):
        """Discriminator: tells draws from the prior from codes."""
        super(Discriminator, self).__init__()
        self.net = nn.Sequential(
            nn.Linear(z_dim, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 1),
        )

    def forward(self, z):
        """z: codes [B, z_dim]; returns predictions [B, 1], < 0 fake, > 0 real."""
        preds = self.net(z)
        return preds

    @property
    def device(self):
        return next(self.parameters()).device


class AdversarialAE(nn.Module):
    def __init__(self, z_dim=8):
        """Adversarial autoencoder of the three networks."""
        super(AdversarialAE, self).__init__()
        self.z_dim = z_dim
        self.encoder = ConvEncoder(z_dim)
        self.decoder = ConvDecoder(z_dim)
        self.discriminator = Discriminator(z_dim)

    def forward(self, x):
        """x: images; returns reconstructions and codes."""
        z = self.encoder(x)
        recon_x = self.decoder(z)
        return recon_x, z

    def get_loss_autoencoder(self, x, recon_x, z_fake, lambda_=1):
        recon_loss = nn.MSELoss()(recon_x, x)
        preds = self.discriminator(z_fake)
        gen_loss = nn.BCEWithLogitsLoss()(preds, torch.ones(preds.shape, device=self.device))
        ae_loss = lambda_ * recon_loss + (1 - lambda_) * gen_loss
        return ae_loss, {"gen_loss": gen_loss.item(), "recon_loss": recon_loss.item(), "ae_loss": ae_loss.item(), "lambda": lambda_}

    def get_loss_discriminator(self, z_fake):
        z_real = torch.randn(z_fake.shape[0], self.z_dim, device=z_fake.device)
        lr, lf = self.discriminator(z_real), self.discriminator(z_fake)
        loss_real = F.softplus(-lr).mean()
        loss_fake = F.softplus(lf).mean()
        disc_loss = loss_real + loss_fake
        c = 0
        for a in lr: c += int(a > 0)
        for a in lf: c += int(a < 0)
        accuracy = torch.tensor(c / (len(lr)+len(lf)))
        return disc_loss, {"disc_loss": disc_loss, "loss_real": loss_real, "loss_fake": loss_fake, "accuracy": accuracy}

    @torch.no_grad()
    def sample(self, batch_size):
        xs = []
        for _ in range(batch_size):
            z = torch.randn(1, self.z_dim).to(self.device)
            xs.append(self.decoder(z))
        return torch.cat(xs, 0)

    @property
    def device(self):
        return self.encoder.device

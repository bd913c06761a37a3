"""Equation 15 literally, one pass for both kinds of codes, NumPy for the accuracy."""

import numpy as np
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
        """Loss of the autoencoder, and a dictionary for the log."""
        recon_loss = torch.pow(recon_x - x, 2).sum() / x.numel()
        d_out = torch.sigmoid(self.discriminator(z_fake))
        gen_loss = torch.log(1 - d_out).mean()  # equation 15 as it stands
        ae_loss = lambda_ * recon_loss + (1 - lambda_) * gen_loss
        logging_dict = {"gen_loss": gen_loss, "recon_loss": recon_loss, "ae_loss": ae_loss}
        return ae_loss, logging_dict

    def get_loss_discriminator(self, z_fake):
        """Loss of the discriminator, and a dictionary for the log."""
        z_fake = z_fake.detach()
        z_real = torch.normal(0.0, 1.0, size=z_fake.shape, device=z_fake.device)
        both = torch.cat([z_real, z_fake])
        target = torch.cat([torch.ones(len(z_real), 1), torch.zeros(len(z_fake), 1)]).to(both.device)
        logits = self.discriminator(both)
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        loss_real, loss_fake = losses[: len(z_real)].mean(), losses[len(z_real) :].mean()
        disc_loss = losses.mean()
        accuracy = np.mean((logits.detach().cpu().numpy() > 0) == target.cpu().numpy())
        logging_dict = {
            "disc_loss": disc_loss,
            "loss_real": loss_real,
            "loss_fake": loss_fake,
            "accuracy": float(accuracy),
        }
        return disc_loss, logging_dict

    @torch.no_grad()
    def sample(self, batch_size):
        """Images of draws from the prior."""
        z = torch.stack(
            [torch.randn(self.z_dim, device=self.decoder.linear[0].weight.device) for _ in range(batch_size)]
        )
        x = torch.clamp(self.decoder.forward(z), -1, 1)
        return x

    @property
    def device(self):
        return self.encoder.device

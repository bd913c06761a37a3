""".view everywhere, batch norm, 32 filters fixed, no `device` in the decoder, losses as modules, codes never detached."""

import torch
import torch.nn as nn


class ConvEncoder(nn.Module):
    def __init__(self, z_dim):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64),
            nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(),
        )  # fmt: skip
        self.linear = nn.Linear(1024, z_dim)

    def forward(self, x):
        return self.linear(self.conv(x.view(-1, 1, 28, 28)).view(x.size(0), 1024))

    @property
    def device(self):
        return next(self.parameters()).device


class ConvDecoder(nn.Module):
    def __init__(self, z_dim):
        super().__init__()
        self.linear = nn.Linear(z_dim, 1024)
        self.conv = nn.Sequential(
            nn.ReLU(), nn.ConvTranspose2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.ConvTranspose2d(32, 1, 3, 2, 1, 1),
        )  # fmt: skip

    def forward(self, z):
        return self.conv(self.linear(z).view(-1, 64, 4, 4)).view(-1, 1, 28, 28).tanh()


class Discriminator(nn.Module):
    def __init__(self, z_dim):
        super().__init__()
        self.z_dim = z_dim
        self.net = nn.Sequential(nn.Linear(z_dim, 1000), nn.ReLU(), nn.Dropout(0.1), nn.Linear(1000, 1))

    def forward(self, z):
        return self.net(z.view(-1, self.z_dim)).view(-1, 1)

    @property
    def device(self):
        return next(self.parameters()).device


class AdversarialAE(nn.Module):
    def __init__(self, z_dim=8):
        super().__init__()
        self.z_dim = z_dim
        self.encoder = ConvEncoder(z_dim)
        self.decoder = ConvDecoder(z_dim)
        self.discriminator = Discriminator(z_dim)
        self.bce, self.mse = nn.BCEWithLogitsLoss(), nn.MSELoss()

    def forward(self, x):
        z = self.encoder(x)
        return self.decoder(z), z

    def get_loss_autoencoder(self, x, recon_x, z_fake, lambda_=1):
        batch = x.size(0)
        recon_loss = self.mse(recon_x.view(batch, -1), x.view(batch, -1))
        fake = self.discriminator(z_fake.view(batch, self.z_dim)).view(-1)
        gen_loss = self.bce(fake, torch.ones(batch, device=fake.device))
        ae_loss = lambda_ * recon_loss + (1 - lambda_) * gen_loss
        return ae_loss, {"gen_loss": gen_loss, "recon_loss": recon_loss, "ae_loss": ae_loss}

    def get_loss_discriminator(self, z_fake):
        batch = z_fake.size(0)
        z_real = torch.randn(batch, self.z_dim).to(self.device)
        real, fake = self.discriminator(z_real).view(-1), self.discriminator(z_fake).view(-1)
        loss_real, loss_fake = self.bce(real, torch.ones_like(real)), self.bce(fake, torch.zeros_like(fake))
        disc_loss = 0.5 * loss_real + 0.5 * loss_fake
        right = (torch.sigmoid(real) > 0.5).float().mean() + (torch.sigmoid(fake) <= 0.5).float().mean()
        values = {"disc_loss": disc_loss, "loss_real": loss_real, "loss_fake": loss_fake, "accuracy": right / 2}
        return disc_loss, {name: value.detach() for name, value in values.items()}

    @torch.no_grad()
    def sample(self, batch_size):
        z = torch.randn((batch_size, self.z_dim)).to(self.device)
        return self.decoder(z).view(batch_size, 1, 28, 28)

    @property
    def device(self):
        return self.encoder.device

"""Gradients that the discriminator's loss leaves with the encoder are cleared before they do harm."""

import torch
from mnist import mnist
from models import AdversarialAE


def train_aae(epoch, model, train_loader, logger_ae, logger_disc, optimizer_ae, optimizer_disc, lambda_=1):
    for x, _ in train_loader:
        x = x.to(model.device)
        optimizer_ae.zero_grad()
        optimizer_disc.zero_grad()
        recon, z = model(x)
        ae_loss, values = model.get_loss_autoencoder(x, recon, z, lambda_)
        ae_loss.backward()
        optimizer_ae.step()
        logger_ae.add_values(values)
        logger_ae.summary_writer.add_scalar("loss", values["ae_loss"].item(), epoch)

        optimizer_disc.zero_grad()
        disc_loss, values = model.get_loss_discriminator(model.encoder(x))
        disc_loss.backward()
        optimizer_disc.step()
        logger_disc.add_values(values)
    logger_ae.summary_writer.add_image("last", recon[0], epoch)


def main(args):
    torch.manual_seed(args.seed)
    loader = mnist(root=args.data_dir, batch_size=args.batch_size, num_workers=args.num_workers)
    model = AdversarialAE(z_dim=args.z_dim).to("cpu")
    autoencoder = [p for name, p in model.named_parameters() if not name.startswith("discriminator")]
    optimizer_ae = torch.optim.Adam(autoencoder, args.ae_lr, (0.5, 0.999))
    optimizer_disc = torch.optim.SGD(model.discriminator.parameters(), args.d_lr)
    for epoch in range(args.epochs):
        train_aae(epoch, model, loader, None, None, optimizer_ae, optimizer_disc, args.lambda_)

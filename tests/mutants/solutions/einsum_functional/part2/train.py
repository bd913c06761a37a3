"""The discriminator moves first, on codes of its own pass."""

import torch
from models import AdversarialAE
from mnist import mnist


def train_aae(epoch, model, train_loader, logger_ae, logger_disc, optimizer_ae, optimizer_disc, lambda_=1):
    model.train()
    for x, _ in train_loader:
        x = x.to(model.device)
        with torch.no_grad():
            z = model.encoder(x)
        optimizer_disc.zero_grad()
        disc_loss, _ = model.get_loss_discriminator(z)
        disc_loss.backward()
        optimizer_disc.step()

        recon, z, _ = model(x) if len(model(x)) == 3 else (*model(x), None)
        optimizer_ae.zero_grad()
        ae_loss, _ = model.get_loss_autoencoder(x, recon, z, lambda_=lambda_)
        ae_loss.backward()
        optimizer_ae.step()


def main(args):
    torch.manual_seed(args.seed)
    model = AdversarialAE(args.z_dim)
    loader = mnist(args.data_dir, args.batch_size, args.num_workers)
    groups = [{"params": model.encoder.parameters()}, {"params": model.decoder.parameters(), "lr": args.ae_lr / 2}]
    optimizers = (
        torch.optim.AdamW(groups, lr=args.ae_lr, betas=(0.5, 0.99)),
        torch.optim.RMSprop(model.discriminator.parameters(), args.d_lr),
    )
    for epoch in range(args.epochs):
        train_aae(epoch, model, loader, None, None, *optimizers, lambda_=args.lambda_)

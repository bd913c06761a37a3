import argparse
import json
import os
from datetime import datetime

import torch
from mnist import mnist
from models import *
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid, save_image
from utils import *


@torch.no_grad()
def generate_and_save(model, epoch, summary_writer, batch_size=64):
    """A grid of samples in TensorBoard and on disk."""
    model.eval()
    samples = model.sample(batch_size)
    grid = make_grid(samples, nrow=8, normalize=True, value_range=(-1, 1))
    summary_writer.add_image("samples", grid, global_step=epoch)
    save_image(grid, os.path.join(summary_writer.log_dir, "results/Prior_samples", f"samples_epoch_{epoch}.png"))


@torch.no_grad()
def save_reconstruction(model, epoch, summary_writer, data):
    """Images and their reconstructions."""
    model.eval()
    data = data[:8]
    recon, _ = model(data)
    grid = make_grid(torch.cat([data, recon]), nrow=8)
    summary_writer.add_image("reconstructions", grid, global_step=epoch)
    folder = os.path.join(summary_writer.log_dir, "results/Reconstruction")
    save_image(torch.cat([data, recon]), os.path.join(folder, f"reconstruction_{epoch}.png"), nrow=8)
    model.train()


def train_aae(epoch, model, train_loader, logger_ae, logger_disc, optimizer_ae, optimizer_disc, lambda_=1):
    model.train()
    train_loss = 0
    assert 0 <= lambda_ <= 1
    for batch_idx, (x, _) in enumerate(train_loader):
        x = x.to(model.device)
        optimizer_ae.zero_grad(set_to_none=True)
        recon_x, z_fake = model(x)
        ae_loss, ae_dict = model.get_loss_autoencoder(x, recon_x, z_fake, lambda_=lambda_)
        ae_loss.backward()
        optimizer_ae.step()
        optimizer_disc.zero_grad(set_to_none=True)
        with torch.no_grad():
            z_fake = model.encoder(x)
        disc_loss, disc_dict = model.get_loss_discriminator(z_fake)
        disc_loss.backward()
        optimizer_disc.step()
        logger_ae.add_values({k: torch.as_tensor(v) for k, v in ae_dict.items()})
        logger_disc.add_values(disc_dict)
        train_loss += disc_loss.item() + ae_loss.item()
        if (epoch <= 1 or epoch % 5 == 0) and batch_idx == 0:
            save_reconstruction(model, epoch, logger_ae.summary_writer, x)
    print(train_loss)


def seed_everything(seed):
    torch.manual_seed(seed)


def main(args):
    """Train from the flags."""
    seed_everything(args.seed)
    experiment_dir = os.path.join(args.log_dir, datetime.now().strftime("AAE_%d_%m_%Y__%H_%M_%S"))
    checkpoint_dir = os.path.join(experiment_dir, "checkpoints")
    for folder in (
        checkpoint_dir,
        *(os.path.join(experiment_dir, "results", d) for d in ("Prior_samples", "Reconstruction")),
    ):
        os.makedirs(folder, exist_ok=True)
    with open(os.path.join(experiment_dir, "hparams.json"), "w") as f:
        json.dump({k: str(v) for k, v in vars(args).items()}, f, indent=4)
    summary_writer = SummaryWriter(experiment_dir)
    logger_ae = TensorBoardLogger(summary_writer, name="generator")
    logger_disc = TensorBoardLogger(summary_writer, name="discriminator")

    train_loader = mnist(root=args.data_dir, batch_size=args.batch_size, num_workers=args.num_workers, download=True)
    model = AdversarialAE(z_dim=args.z_dim)
    device = torch.device("cuda") if (not args.no_cuda and torch.cuda.is_available()) else torch.device("cpu")
    model = model.to(device)

    params_ae = [p for n, p in model.named_parameters() if 'disc' not in n]
    optimizer_ae = torch.optim.Adam(params_ae, lr=args.ae_lr, betas=(0.5, 0.999))
    optimizer_disc = torch.optim.SGD(model.discriminator.parameters(), lr=args.d_lr)

    generate_and_save(model, 0, summary_writer, args.batch_size)
    for epoch in range(args.epochs):
        train_aae(epoch, model, train_loader, logger_ae, logger_disc, optimizer_ae, optimizer_disc, args.lambda_)
        if epoch == 1 or epoch % 5 == 0:
            generate_and_save(model, epoch, summary_writer)
        if epoch % 10 == 0:
            torch.save(model.state_dict(), os.path.join(checkpoint_dir, "model_checkpoint.pt"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--z_dim", default=8, type=int)
    parser.add_argument("--batch_size", default=64, type=int)
    parser.add_argument("--lambda_", default=0.995, type=float)
    parser.add_argument("--ae_lr", default=1e-3, type=float)
    parser.add_argument("--d_lr", default=5e-3, type=float)
    parser.add_argument("--data_dir", default="../data/", type=str)
    parser.add_argument("--epochs", default=100, type=int)
    parser.add_argument("--seed", default=42, type=int)
    parser.add_argument("--num_workers", default=4, type=int)
    parser.add_argument("--log_dir", default="AAE_logs/", type=str)
    parser.add_argument("--no-cuda", action="store_true", default=False)
    main(parser.parse_args())

import argparse
import os

import torch
import torch.nn as nn
import torch.nn.functional as F
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torchvision.utils import make_grid, save_image

from cnn_encoder_decoder import CNNEncoder, CNNDecoder
from mnist import mnist
from utils import *


class VAE(pl.LightningModule):
    def __init__(self, num_filters, z_dim, lr):
        """PyTorch Lightning module of the VAE."""
        super().__init__()
        self.save_hyperparameters()
        self.encoder = CNNEncoder(z_dim=z_dim, num_filters=num_filters)
        self.decoder = CNNDecoder(z_dim=z_dim, num_filters=num_filters)

    def forward(self, imgs):
        """Calculates the losses of a batch: reconstruction, regularization, bits per dimension."""
        mean, log_std = self.encoder(imgs)
        z = sample_reparameterize(mean, torch.exp(log_std))
        logits = self.decoder(z)
        L_rec = F.cross_entropy(logits, imgs.squeeze(1), reduction='none').sum(dim=(1, 2)).mean()
        L_reg = KLD(mean, log_std).mean()
        bpd = elbo_to_bpd(L_rec + L_reg, imgs.shape)
        return L_rec, L_reg, bpd

    @torch.no_grad()
    def sample(self, batch_size):
        """Samples new images, [B, 1, 28, 28] with values 0 to 15."""
        z = torch.randn(batch_size, self.hparams.z_dim, device=self.device)
        logits = self.decoder(z)
        probs = F.softmax(logits, dim=1)
        pixels = probs.permute(0, 2, 3, 1).reshape(-1, 16)
        x_samples = torch.multinomial(pixels, num_samples=1)
        x_samples = x_samples.reshape(batch_size, 1, 28, 28)
        x_mean = (probs * torch.arange(16).view(1, 16, 1, 1).to(self.device)).sum(dim=1, keepdim=True) / 15
        return x_samples, x_mean

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
        return optimizer

    def training_step(self, batch, batch_idx):
        L_rec, L_reg, bpd = self.forward(batch[0])
        self.log("train_reconstruction_loss", L_rec, on_step=False, on_epoch=True)
        self.log("train_regularization_loss", L_reg, on_step=False, on_epoch=True)
        self.log("train_ELBO", L_rec + L_reg, on_step=False, on_epoch=True)
        self.log("train_bpd", bpd, on_step=False, on_epoch=True)
        return bpd

    def validation_step(self, batch, batch_idx):
        L_rec, L_reg, bpd = self.forward(batch[0])
        self.log("val_reconstruction_loss", L_rec)
        self.log("val_regularization_loss", L_reg)
        self.log("val_ELBO", L_rec + L_reg)
        self.log("val_bpd", bpd)

    def training_epoch_end(self, outputs):
        self.mean_loss = torch.stack([output["loss"] for output in outputs]).mean()

    def test_step(self, batch, batch_idx):
        L_rec, L_reg, bpd = self.forward(batch[0])
        self.log("test_bpd", bpd)


class GenerateCallback(pl.Callback):
    def __init__(self, batch_size=64, every_n_epochs=5, save_to_disk=False):
        super().__init__()
        self.batch_size = batch_size
        self.every_n_epochs = every_n_epochs
        self.save_to_disk = save_to_disk

    def on_train_epoch_end(self, trainer, pl_module):
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.sample_and_save(trainer, pl_module, trainer.current_epoch + 1)

    def sample_and_save(self, trainer, pl_module, epoch):
        """Samples images and adds them to TensorBoard, and to the disk."""
        samples, means = pl_module.sample(self.batch_size)
        samples = samples.float() / 15
        grid = make_grid(samples, nrow=8, normalize=True, range=(0, 1), pad_value=0.5)
        grid = grid.detach().cpu()
        trainer.logger.experiment.add_image("Samples", grid, global_step=epoch)
        trainer.logger.experiment.add_image("Means", make_grid(means, nrow=8), global_step=epoch)
        if self.save_to_disk:
            save_image(grid, os.path.join(trainer.logger.log_dir, f"samples_{epoch:03d}.png"))


def train_vae(args):
    """Trains and tests a VAE; returns the test result."""
    os.makedirs(args.log_dir, exist_ok=True)
    train_loader, val_loader, test_loader = mnist(
        batch_size=args.batch_size, num_workers=args.num_workers, root=args.data_dir)
    gen_callback = GenerateCallback(save_to_disk=True)
    save_callback = ModelCheckpoint(save_weights_only=True, mode="min", monitor="val_bpd")
    logger = TensorBoardLogger(args.log_dir)
    trainer = pl.Trainer(
        default_root_dir=args.log_dir, gpus=1 if torch.cuda.is_available() else 0, max_epochs=args.epochs, logger=logger,
        callbacks=[save_callback, gen_callback], progress_bar_refresh_rate=1 if args.progress_bar else 0, weights_summary=None)
    trainer.logger._default_hp_metric = None
    pl.seed_everything(args.seed)
    model = VAE(num_filters=args.num_filters, z_dim=args.z_dim, lr=args.lr)
    os.makedirs(trainer.logger.log_dir, exist_ok=True)
    gen_callback.sample_and_save(trainer, model, epoch=0)
    trainer.fit(model, train_loader, val_loader)
    model = VAE.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    test_result = trainer.test(model, dataloaders=test_loader, verbose=True)
    if args.z_dim == 2:
        img_grid = visualize_manifold(model.decoder)
        save_image(img_grid, os.path.join(trainer.logger.log_dir, 'vae_manifold.png'), normalize=False)
    return test_result


if __name__ == '__main__':
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--z_dim', default=20, type=int, help='Dimensionality of latent space')
    parser.add_argument('--num_filters', default=32, type=int, help='Channels of the networks')
    parser.add_argument('--lr', default=1e-3, type=float, help='Learning rate')
    parser.add_argument('--batch_size', default=128, type=int, help='Minibatch size')
    parser.add_argument('--data_dir', default='../data/', type=str, help='Folder of the data')
    parser.add_argument('--epochs', default=80, type=int, help='Max number of epochs')
    parser.add_argument('--seed', default=42, type=int, help='Seed')
    parser.add_argument('--num_workers', default=4, type=int, help='Workers of the data loaders')
    parser.add_argument('--log_dir', default='VAE_logs', type=str, help='Folder of the logs')
    parser.add_argument('--progress_bar', action='store_true', help='Use a progress bar')
    train_vae(parser.parse_args())

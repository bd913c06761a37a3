import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torchvision.utils import save_image

import utils
from cnn_encoder_decoder import CNNDecoder, CNNEncoder


class VAE(pl.LightningModule):
    def __init__(self, num_filters, z_dim, lr):
        super().__init__()
        self.save_hyperparameters()
        self.encoder, self.decoder = CNNEncoder(1, num_filters, z_dim), CNNDecoder(16, num_filters, z_dim)

    def forward(self, x):
        mu, s = self.encoder(x)
        logp = self.decoder(utils.sample_reparameterize(mean=mu, std=s.exp())).log_softmax(1)
        target = F.one_hot(x[:, 0], 16).to(logp)
        rec = -torch.einsum("bkhw,bhwk->", logp, target) / len(x)
        reg = torch.einsum("b->", utils.KLD(mean=mu, log_std=s)) / len(x)
        return rec, reg, utils.elbo_to_bpd(elbo=rec + reg, img_shape=x.shape)

    @torch.no_grad()
    def sample(self, batch_size):
        z = torch.randn(batch_size, self.hparams.z_dim).to(self.decoder.device)
        logits = self.decoder(z)
        gumbel = -torch.empty_like(logits).exponential_().log()
        return (logits + gumbel).argmax(dim=1, keepdim=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), self.hparams.lr)

    def step(self, batch, mode):
        rec, reg, bpd = self(batch[0])
        values = {"reconstruction_loss": rec, "regularization_loss": reg, "ELBO": rec + reg, "bpd": bpd}
        self.log_dict({f"{mode}_{name}": value for name, value in values.items()}, on_step=False, on_epoch=True)
        return rec + reg

    def training_step(self, batch, _):
        return self.step(batch, "train")

    def validation_step(self, batch, _):
        self.step(batch, "val")

    def test_step(self, batch, _):
        self.step(batch, "test")


class GenerateCallback(pl.Callback):
    def __init__(self, batch_size=64, every_n_epochs=5, save_to_disk=False):
        self.batch_size, self.every_n_epochs, self.save_to_disk = batch_size, every_n_epochs, save_to_disk

    def sample_and_save(self, trainer, pl_module, epoch):
        images = pl_module.sample(self.batch_size) / 15
        trainer.logger.experiment.add_images("Samples", images, epoch)
        if self.save_to_disk:
            save_image(images, f"{trainer.logger.log_dir}/epoch_{epoch}_samples.png")

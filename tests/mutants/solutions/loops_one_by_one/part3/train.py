import argparse

import pytorch_lightning as pl
import torch
import torch.nn as nn
import torchmetrics
from dataset import TextDataset
from gpt import GPT
from lightning.pytorch import callbacks
from torch.utils.data import DataLoader, RandomSampler


class GPTLightningModule(pl.LightningModule):
    """Trains a GPT."""

    def __init__(self, config, model, train_dataset):
        super().__init__()
        self.config, self.model, self.train_dataset = config, model, train_dataset
        self.cross_entropy = nn.CrossEntropyLoss()
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=config.vocab_size, top_k=50)

    def configure_optimizers(self):
        return self.model.configure_optimizers(self.config)

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.model(x).view(-1, self.config.vocab_size)
        loss = self.cross_entropy(logits, y.view(-1))
        self.log("train_loss", loss)
        return loss

    def train_dataloader(self):
        sampler = RandomSampler(self.train_dataset, replacement=True)
        return DataLoader(self.train_dataset, sampler=sampler, batch_size=self.config.train_batch_size, drop_last=True)


def train(args):
    pl.seed_everything(args.seed)
    dataset = TextDataset(args, args.txt_file, args.block_size)
    args.vocab_size = dataset.vocab_size
    config = GPT.get_default_config()
    config.model_type, config.vocab_size, config.block_size = args.model_type, dataset.vocab_size, args.block_size
    module = GPTLightningModule(args, GPT(config), dataset)
    trainer = pl.Trainer(max_epochs=args.num_epochs, callbacks=[callbacks.ModelCheckpoint()])
    trainer.fit(module)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--txt_file", type=str, required=True)
    parser.add_argument("--model_type", default="gpt-mini")
    parser.add_argument("--block_size", type=int, default=128)
    parser.add_argument("--train_batch_size", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--weight_decay", type=float, default=0.1)
    parser.add_argument("--betas", type=tuple, default=(0.9, 0.95))
    parser.add_argument("--num_epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    train(args)

import pytorch_lightning as pl
import seaborn
import sympy
import torch.nn.functional as F
from cfg import get_config
from dataset import TextDataset
from gpt import GPT


class GPTLightningModule(pl.LightningModule):
    def __init__(self, config, model, train_dataset):
        super().__init__()
        self.config, self.model, self.train_dataset = config, model, train_dataset

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.model(x).flatten(0, 1), y.flatten())


if __name__ == "__main__":
    args = get_config()
    data = TextDataset(args, args.txt_file)
    config = GPT.get_default_config()
    config.model_type, config.vocab_size, config.block_size = args.model_type, data.vocab_size, args.block_size
    pl.Trainer().fit(GPTLightningModule(args, GPT(config), data))

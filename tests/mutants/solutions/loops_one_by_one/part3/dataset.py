import torch
from torch.utils.data import Dataset


class TextDataset(Dataset):
    """Characters of a text."""

    def __init__(self, config, datafile_path, block_size=128):
        self.config = config
        self.block_size = block_size
        with open(datafile_path) as f:
            self.data = f.read()
        chars = sorted(set(self.data))
        self.vocab_size = len(chars)
        print("data has %d characters, %d unique." % (len(self.data), self.vocab_size))
        self.string_to_index = {ch: i for i, ch in enumerate(chars)}
        self.index_to_string = {i: ch for i, ch in enumerate(chars)}

    def __len__(self):
        return len(self.data) - self.block_size

    def __getitem__(self, idx):
        chunk = [self.string_to_index[s] for s in self.data[idx : idx + self.block_size + 1]]
        return torch.tensor(chunk[:-1], dtype=torch.long), torch.tensor(chunk[1:], dtype=torch.long)

import torch
from torch.utils.data import Dataset


class CharTokenizer:
    def __init__(self, text):
        self.vocab = sorted(set(text))
        self.to_index = {ch: i for i, ch in enumerate(self.vocab)}


class TextDataset(Dataset):
    def __init__(self, args, datafile_path, return_tensors="pt"):
        self.data = open(datafile_path).read()
        self.tokenizer = CharTokenizer(self.data)
        self.block_size = args.block_size
        self.vocab_size = len(self.tokenizer.vocab)

    def encode(self, text):
        return torch.tensor([self.tokenizer.to_index[ch] for ch in text], dtype=torch.long)

    def decode(self, tokens):
        return "".join(self.tokenizer.vocab[int(t)] for t in tokens)

    def __len__(self):
        return len(self.data) - self.block_size

    def __getitem__(self, idx):
        chunk = self.encode(self.data[idx : idx + self.block_size + 1])
        return chunk[:-1], chunk[1:]

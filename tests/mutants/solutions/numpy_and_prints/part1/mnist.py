import torch
import torch.utils.data as data
from torchvision import transforms
from torchvision.datasets import MNIST


class DiscretizeTransform:
    def __init__(self, num_values):
        self.num_values = num_values

    def __call__(self, sample):
        return (sample * self.num_values).to(torch.long).clamp(max=self.num_values - 1)


def mnist(root='../data/', batch_size=128, num_workers=4, download=True):
    """Returns data loaders for 4-bit MNIST: train, validation and test."""
    data_transforms = transforms.Compose([transforms.ToTensor(), DiscretizeTransform(num_values=16)])
    dataset = MNIST(root, train=True, transform=data_transforms, download=download)
    test_set = MNIST(root, train=False, transform=data_transforms, download=download)
    train_set, val_set = data.random_split(dataset, lengths=[54000, 6000], generator=torch.Generator().manual_seed(42))
    train_loader = data.DataLoader(train_set, batch_size=batch_size, shuffle=True, num_workers=num_workers, pin_memory=True)
    val_loader = data.DataLoader(val_set, batch_size=batch_size, shuffle=False, num_workers=num_workers)
    test_loader = data.DataLoader(test_set, batch_size=batch_size, shuffle=False, num_workers=num_workers)
    return train_loader, val_loader, test_loader

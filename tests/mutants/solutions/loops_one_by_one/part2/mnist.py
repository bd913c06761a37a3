import torch.utils.data as data
from torchvision import transforms
from torchvision.datasets import MNIST


def mnist(root="../data", batch_size=64, num_workers=4, download=True):
    """Loader of MNIST's training images in [-1, 1]."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    dataset = MNIST(root, train=True, transform=transform, download=download)
    return data.DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers, pin_memory=True)

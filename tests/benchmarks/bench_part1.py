"""Part 1's VAE against the plain pipeline and pythae's trainer: `python tests/benchmarks/bench_part1.py`.

A measurement trains a new model for 100 of an epoch's 422 steps and validates it on the same share of the 6,000
validation images (`--steps 0`: on all). All implementations train the same networks with the same batch size. Pythae
is measured if it is installed (`pip install --no-deps pythae imageio`).
"""

import importlib.util
import os
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "part1"))
import runner

if __name__ == "__main__":
    ARGS = runner.build_parser("bench_part1.py", __doc__, steps=100).parse_args()  # first, since PyTorch takes seconds

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

import limits
from args import complete_args
from callbacks import AtomicCheckpointIO, BestAndLast, RunRecord, SeedEveryEpoch
from cnn_encoder_decoder import CNNDecoder, CNNEncoder
from mnist import load_data, mnist
from train_pl import VAE, GenerateCallback
from utils import KLD, elbo_to_bpd, reconstruction_loss

COURSE = {"num_filters": 32, "z_dim": 20, "lr": 1e-3}
BATCH_SIZE = 128
STEPS_PER_EPOCH = 422


class Clock(pl.Callback):
    """Records when the first step begins and the last one ends."""

    def on_train_epoch_start(self, trainer, pl_module):
        limits.synchronize()
        self.start = time.perf_counter()

    def on_validation_start(self, trainer, pl_module):
        limits.synchronize()
        self.train_seconds = time.perf_counter() - self.start


def fit(trainer, model, train, val, clock: Clock, steps: int) -> dict:
    """Train for an epoch, or for `steps` steps and the same share of the validation."""
    if steps:
        trainer.limit_train_batches, trainer.limit_val_batches = steps, max(1, steps * len(val) // len(train))
    trainer.fit(model, train, val)
    limits.synchronize()
    seconds = time.perf_counter() - clock.start
    loss = trainer.callback_metrics["val_bpd"].item()
    return {"seconds": seconds, "train_seconds": clock.train_seconds, "loss": loss}


def ours(args: Namespace) -> runner.Measure:
    """The training of `part1/train.py`."""
    model = VAE(**COURSE).to(limits.device(), memory_format=torch.channels_last)
    imgs = torch.randint(0, 16, (BATCH_SIZE, 1, 28, 28), device=limits.device())
    counted = limits.count(lambda: model(imgs)[2].backward())

    def measure(seed: int, steps: int) -> dict:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            given = Namespace(data_dir=args.data_dir, log_dir=folder, epochs=1, seed=seed)
            flags, _, _ = complete_args(given, read=None)
            pl.seed_everything(seed, workers=True, verbose=False)
            train, val, _ = load_data(flags, limits.device())
            model = VAE(**COURSE).to(memory_format=torch.channels_last)
            trainer = pl.Trainer(
                devices=1,
                benchmark=True,
                max_epochs=1,
                logger=TensorBoardLogger(folder, default_hp_metric=False),
                plugins=[AtomicCheckpointIO()],
                callbacks=[SeedEveryEpoch(seed), RunRecord(flags), GenerateCallback(save_to_disk=True), BestAndLast(),
                           clock],
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
            )  # fmt: skip
            return {**fit(trainer, model, train, val, clock, steps), "counted": counted}

    return measure


def baseline(args: Namespace) -> runner.Measure:
    """The plain pipeline."""
    import baseline_vae

    def measure(seed: int, steps: int) -> dict:
        train, val = baseline_vae.loaders(args.data_dir, BATCH_SIZE, num_workers=min(4, os.cpu_count()))
        pl.seed_everything(seed, workers=True, verbose=False)
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            trainer = baseline_vae.trainer(folder, [clock])
            return fit(trainer, baseline_vae.PlainVAE(**COURSE), train, val, clock, steps)

    return measure


def pythae(args: Namespace) -> runner.Measure:
    """Pythae's VAE and trainer with part 1's networks and loss, on images held in memory as floats."""
    import numpy as np
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = CNNEncoder(num_filters=COURSE["num_filters"], z_dim=COURSE["z_dim"])

        def forward(self, x):
            mean, log_std = self.net(x.long())
            return ModelOutput(embedding=mean, log_covariance=2 * log_std)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = CNNDecoder(num_filters=COURSE["num_filters"], z_dim=COURSE["z_dim"])

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z))

    class Categorical(VAE):
        """Pythae's own losses are for pixels between 0 and 1."""

        def loss_function(self, recon_x, x, mu, log_var, z):
            nll, kld = reconstruction_loss(recon_x, x.long()).mean(), KLD(mu, log_var / 2).mean()
            return elbo_to_bpd(nll + kld, x.shape), nll, kld

    def in_memory(subset) -> BaseDataset:
        images, labels = subset.dataset[torch.as_tensor(subset.indices)]
        return BaseDataset(images.float(), labels)

    train, val = map(in_memory, (loader.dataset for loader in mnist(args.data_dir, num_workers=0)[:2]))

    def measure(seed: int, steps: int) -> dict:
        torch.manual_seed(seed)
        np.random.seed(seed)
        model = Categorical(VAEConfig(input_dim=(1, 28, 28), latent_dim=COURSE["z_dim"]), Encoder(), Decoder())
        with tempfile.TemporaryDirectory() as folder:
            sizes = {f"per_device_{mode}_batch_size": BATCH_SIZE for mode in ("train", "eval")}
            config = BaseTrainerConfig(output_dir=folder, num_epochs=1, learning_rate=COURSE["lr"], seed=seed, **sizes)
            share = steps / STEPS_PER_EPOCH if steps else 1
            trainer = BaseTrainer(model, first(train, share), first(val, share), config)
            trainer.prepare_training()
            trainer.callback_handler.callbacks.clear()  # bars
            limits.synchronize()
            start = time.perf_counter()
            trainer.train_step(1)
            loss = trainer.eval_step(1)
            limits.synchronize()
        return {"seconds": time.perf_counter() - start, "loss": float(loss)}

    def first(dataset: BaseDataset, share: float) -> BaseDataset:
        count = round(share * len(dataset))
        return BaseDataset(dataset.data[:count], dataset.labels[:count])

    return measure


IMPLEMENTATIONS = {"ours": ours, "baseline": baseline, "pythae": pythae, "limit": runner.limit}


def compare(args: Namespace) -> None:
    names = list(IMPLEMENTATIONS)
    if importlib.util.find_spec("pythae") is None:
        print("pythae is not installed: it is left out")
        names.remove("pythae")
    found = runner.run_benchmark(__file__, names, args)
    rows, steps = runner.table(found), args.steps or STEPS_PER_EPOCH
    step_seconds = rows["ours"]["train_seconds"]["median"] / steps
    result = {
        "task": f"VAE with z_dim 20, {steps} steps of {BATCH_SIZE} images, and the same share of the validation",
        "rows": rows,
        "step": limits.shares(found["ours"][0]["counted"], step_seconds, rows["limit"]),
        "help_seconds": runner.help_seconds("part1"),
        "training": runner.one_epoch("part1", args.data_dir),
    }
    for other in ("baseline", "pythae"):
        if other in found:
            result[f"over_{other}"] = runner.ratios(found["ours"], found[other])
            result[f"losses_{other}"] = runner.agree(found["ours"], found[other])
    runner.write(args.output, "part1", result, ["pytorch-lightning", *(["pythae"] if "pythae" in found else [])])


if __name__ == "__main__":
    raise SystemExit(runner.main(IMPLEMENTATIONS, compare, ARGS))

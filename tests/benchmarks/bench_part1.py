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

import runner

PART = runner.REPOSITORY / "part1"
COURSE = {"num_filters": 32, "z_dim": 20, "lr": 1e-3}
BATCH_SIZE = 128
STEPS_PER_EPOCH = 422


def clock():
    """Callback that records when the first step begins and the last one ends."""
    import pytorch_lightning as pl

    import limits

    class Clock(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            limits.synchronize()
            self.start = time.perf_counter()

        def on_validation_start(self, trainer, pl_module):
            limits.synchronize()
            self.train_seconds = time.perf_counter() - self.start

    return Clock()


def fit(trainer, model, train, val, watch, steps: int) -> dict:
    """Train for an epoch, or for `steps` steps and the same share of the validation."""
    import limits

    if steps:
        trainer.limit_train_batches, trainer.limit_val_batches = steps, max(1, steps * len(val) // len(train))
    trainer.fit(model, train, val)
    limits.synchronize()
    seconds = time.perf_counter() - watch.start
    loss = trainer.callback_metrics["val_bpd"].item()
    return {"seconds": seconds, "train_seconds": watch.train_seconds, "loss": loss}


def ours(args) -> runner.Measure:
    """What `part1/train.py` sets up."""
    import torch

    import limits
    import train_pl
    import training_run
    from gpu import configure_gpu
    from inputs import resolve_settings

    training_run.configure_cpu()
    training_run.silence_lightning()
    configure_gpu(deterministic=False)

    def measure(seed: int, steps: int) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            flags = Namespace(data_dir=args.data_dir, log_dir=folder, epochs=1, seed=seed)
            settings = resolve_settings(flags, train_pl.read_checkpoint)
            train, val, _ = training_run.make_loaders(settings)
            training_run.seed_everything(seed)
            model = train_pl.VAE(**COURSE).to(memory_format=torch.channels_last)
            trainer, _ = training_run.make_trainer(settings)
            watch = clock()
            trainer.callbacks.append(watch)
            result = fit(trainer, model, train, val, watch, steps)
        if not seed:
            model.to(limits.device())
            imgs = torch.randint(0, 16, (BATCH_SIZE, 1, 28, 28), device=limits.device())
            measure.counted = limits.count(lambda: model(imgs)[2].backward())
        return {**result, "counted": measure.counted}

    return measure


def baseline(args) -> runner.Measure:
    """The plain pipeline."""
    import pytorch_lightning as pl

    import baseline_vae

    def measure(seed: int, steps: int) -> dict:
        train, val = baseline_vae.loaders(args.data_dir, BATCH_SIZE, num_workers=min(4, os.cpu_count()))
        pl.seed_everything(seed, workers=True, verbose=False)
        watch = clock()
        with tempfile.TemporaryDirectory() as folder:
            trainer = baseline_vae.trainer(folder, [watch])
            return fit(trainer, baseline_vae.PlainVAE(**COURSE), train, val, watch, steps)

    return measure


def pythae(args) -> runner.Measure:
    """Pythae's VAE and trainer with part 1's networks and loss, on images held in memory as floats."""
    import numpy as np
    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    import limits
    import mnist
    from cnn_encoder_decoder import CNNDecoder, CNNEncoder
    from utils import KLD, elbo_to_bpd, reconstruction_loss

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

    train, val = map(in_memory, (loader.dataset for loader in mnist.mnist(args.data_dir, num_workers=0)[:2]))

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


def main() -> int:
    args = runner.parse(runner.build_parser(__doc__.split("\n\n")[0], steps=100))
    sys.path.insert(0, str(PART))
    implementations = {"ours": ours, "baseline": baseline, "pythae": pythae, "limit": runner.limit}
    if importlib.util.find_spec("pythae") is None:
        print("pythae is not installed: it is left out")
        implementations.pop("pythae")
    if args.worker:
        runner.serve(implementations, args)
        return 0
    found = runner.run_benchmark(__file__, implementations, args)
    import limits

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
    return 0


if __name__ == "__main__":
    raise SystemExit(runner.run_command(main))

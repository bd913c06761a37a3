"""Sample texts while a GPT trains."""

from pathlib import Path

import pytorch_lightning as pl

RULE = "-" * 80


class GenerateCallback(pl.Callback):
    """Puts sample texts into TensorBoard and into the run's folder, before training, every few steps, and at the end.

    The same random numbers are used each time, so that the texts can be compared, and those of the training are left
    alone.

    Args:
        batch_size: texts in a round.
        every_n_steps: steps between two rounds.
        n_steps: tokens of a text.
    """

    def __init__(self, batch_size: int = 5, every_n_steps: int = 1000, n_steps: int = 300):
        self.batch_size, self.every_n_steps, self.n_steps = batch_size, every_n_steps, n_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self.sample_and_save(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx: int) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            pl_module.check_finite(batch)  # nothing can be drawn from probabilities that are NaN
            self.sample_and_save(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step % self.every_n_steps:
            pl_module.to(trainer.strategy.root_device)  # by now, Lightning has moved it to the CPU
            self.sample_and_save(trainer, pl_module)

    def sample_and_save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the texts of the present step."""
        if not trainer.is_global_zero or trainer.logger is None:
            return
        texts = pl_module.generate(num_samples=self.batch_size, n_steps=self.n_steps, verbose=False)
        step = trainer.global_step
        shown = "\n\n---\n\n".join("\n".join(f"    {line}" for line in text.splitlines()) for text in texts)
        trainer.logger.experiment.add_text("Training texts", shown, step)  # indented, so that Markdown keeps its lines
        folder = Path(trainer.logger.log_dir, "texts")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"step_{step}.txt").write_text(f"\n{RULE}\n".join(texts) + "\n", encoding="utf-8")

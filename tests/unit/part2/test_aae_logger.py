"""TensorBoardLogger of part 2: means over a window of steps, read from the device once a window."""

import pytest
import torch


class Writer:
    """Keeps what would be written."""

    def __init__(self):
        self.written = []

    def add_scalar(self, tag, value, global_step=None, **kwargs):
        self.written.append((tag, float(value), global_step))

    def values(self, tag: str) -> list[float]:
        return [value for name, value, _ in self.written if name == tag]

    def steps(self, tag: str) -> list[int]:
        return [step for name, _, step in self.written if name == tag]


def test_means_over_each_window(part2):
    writer = Writer()
    logger = part2.utils.TensorBoardLogger(writer, avg_window=3, name="generator")
    for value in (1.0, 2.0, 6.0, 10.0, 10.0, 13.0, 99.0):
        logger.add_values({"loss": torch.tensor(value)})
    assert writer.values("generator/loss") == pytest.approx([3.0, 11.0])
    steps = writer.steps("generator/loss")
    assert steps[1] - steps[0] == 3, "the step counts batches"


def test_default_window(part2):
    writer = Writer()
    logger = part2.utils.TensorBoardLogger(writer)
    for step in range(1, 100):
        logger.add_values({"loss": torch.tensor(float(step))})
    assert [value for _, value, _ in writer.written] == pytest.approx([25.5])
    assert writer.written[0][0].strip("/") == "loss"


def test_few_reads(part2, monkeypatch):
    logger = part2.utils.TensorBoardLogger(Writer(), avg_window=4)
    reads = []
    for method in ("item", "tolist", "cpu", "__float__"):
        original = getattr(torch.Tensor, method)
        monkeypatch.setattr(
            torch.Tensor, method, lambda self, o=original, m=method, **kw: reads.append(m) or o(self, **kw)
        )
    for step in range(1, 9):
        logger.add_values({"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
        assert len(reads) == 2 * (step // 4), "one read of each mean"


def test_resumed_logger(part2):
    whole, parts = Writer(), Writer()
    logger = part2.utils.TensorBoardLogger(whole, avg_window=3)
    first = part2.utils.TensorBoardLogger(parts, avg_window=3)
    values = [float(value) for value in (3, 1, 4, 1, 5, 9, 2)]
    for value in values:
        logger.add_values({"loss": torch.tensor(value)})
    for value in values[:4]:
        first.add_values({"loss": torch.tensor(value)})
    state = first.state_dict()
    assert state == first.state_dict(), "asking for the state changes nothing"
    second = part2.utils.TensorBoardLogger(parts, avg_window=3)
    second.load_state_dict(state)
    for value in values[4:]:
        second.add_values({"loss": torch.tensor(value)})
    assert parts.written == whole.written


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("-inf"))])
def test_check_finite(part2, value):
    part2.utils.check_finite({"epoch": 1, "loss": torch.tensor(0.5)}, "epoch 1")
    with pytest.raises(part2.run.InputError, match="ae_loss is not finite in epoch 3: lower --ae_lr or --d_lr"):
        part2.utils.check_finite({"recon_loss": 1.0, "ae_loss": value}, "epoch 3")

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


def test_every_value_has_its_own_mean(part2):
    writer = Writer()
    logger = part2.utils.TensorBoardLogger(writer, avg_window=2, name="discriminator")
    logger.add_values({"real": torch.tensor(1.0), "fake": torch.tensor(-4.0)})
    logger.add_values({"real": torch.tensor(2.0), "fake": torch.tensor(4.0)})
    assert writer.values("discriminator/real") == pytest.approx([1.5])
    assert writer.values("discriminator/fake") == pytest.approx([0.0])


def test_windows_of_fifty_steps_by_default(part2):
    writer = Writer()
    logger = part2.utils.TensorBoardLogger(writer)
    for step in range(1, 100):
        logger.add_values({"loss": torch.tensor(float(step))})
    assert [value for _, value, _ in writer.written] == pytest.approx([25.5])
    assert writer.written[0][0].strip("/") == "loss"


def test_numbers_are_as_good_as_tensors(part2):
    writer = Writer()
    logger = part2.utils.TensorBoardLogger(writer, avg_window=2, name="x")
    logger.add_values({"accuracy": 0.25})
    logger.add_values({"accuracy": 0.75})
    assert writer.values("x/accuracy") == pytest.approx([0.5])


def test_the_step_is_the_number_of_steps_so_far(part2):
    writer = Writer()
    logger = part2.utils.TensorBoardLogger(writer, avg_window=3)
    for _ in range(7):
        logger.add_values({"loss": torch.tensor(1.0)})
    assert writer.steps("loss") == [3, 6]


def test_a_value_that_comes_at_times_only_waits_for_its_own_window(part2):
    writer = Writer()
    logger = part2.utils.TensorBoardLogger(writer, avg_window=2)
    for step in range(1, 7):
        logger.add_values(
            {"often": torch.tensor(float(step)), **({"seldom": torch.tensor(step)} if step % 3 == 0 else {})}
        )
    assert writer.values("often") == pytest.approx([1.5, 3.5, 5.5])
    assert writer.values("seldom") == pytest.approx([4.5])
    assert writer.steps("seldom") == [6]


def test_nothing_is_read_before_the_window_is_full(part2, monkeypatch):
    logger = part2.utils.TensorBoardLogger(Writer(), avg_window=4)
    reads = []
    for method in ("item", "tolist", "cpu", "__float__"):
        original = getattr(torch.Tensor, method)
        monkeypatch.setattr(
            torch.Tensor, method, lambda self, o=original, m=method, **kw: reads.append(m) or o(self, **kw)
        )
    for step in range(1, 9):
        logger.add_values({"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
        assert len(reads) == step // 4, "one read a window, for all values together"


def test_values_let_go_of_their_graph(part2):
    logger = part2.utils.TensorBoardLogger(Writer(), avg_window=4)
    logger.add_values({"a": torch.ones((), requires_grad=True) * 2})
    assert not any(value.requires_grad for value in logger._values.pending["a"])


def test_a_logger_goes_on_where_another_stopped(part2):
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

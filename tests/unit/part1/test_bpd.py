"""Bits per dimension: one bit is log 2 nats, and the batch dimension does not count."""

import math

import pytest
import torch


def test_one_bit_for_each_dimension(part1):
    nats = torch.tensor(3 * 7 * 11 * math.log(2))
    assert part1.utils.elbo_to_bpd(nats, [5, 3, 7, 11]).item() == pytest.approx(1.0, rel=1e-6)


def test_16_equal_values_need_4_bits(part1):
    nats = torch.tensor(784 * math.log(16))
    assert part1.utils.elbo_to_bpd(nats, [128, 1, 28, 28]).item() == pytest.approx(4.0, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 13])
def test_the_batch_dimension_does_not_count(part1, batch_size):
    bpd = part1.utils.elbo_to_bpd(torch.tensor(100.0), [batch_size, 2, 5, 5])
    assert bpd.item() == pytest.approx(2 / math.log(2), rel=1e-6)


@pytest.mark.parametrize("make_shape", [list, tuple, torch.Size])
def test_one_value_for_each_image(part1, make_shape):
    nats = torch.tensor([0.0, 7.0, -14.0])
    bpd = part1.utils.elbo_to_bpd(nats, make_shape([3, 1, 7, 1]))
    torch.testing.assert_close(bpd, torch.tensor([0.0, 1.0, -2.0]) / math.log(2))


def test_gradient(part1):
    nats = torch.tensor([1.0, 2.0], requires_grad=True)
    part1.utils.elbo_to_bpd(nats, [2, 3, 5, 7]).sum().backward()
    torch.testing.assert_close(nats.grad, torch.full((2,), 1 / (105 * math.log(2))))

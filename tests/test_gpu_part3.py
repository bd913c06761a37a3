"""Part 3 on a GPU, without one: devices of tensors."""

from argparse import Namespace

import pytest
import torch

from fake_cuda import Copies, fake_cuda, on_cuda
from part_loader import load_script


def tiny(part3):
    config = part3.gpt.GPT.get_default_config()
    config.n_layer, config.n_head, config.n_embd, config.vocab_size, config.block_size = 1, 2, 8, 11, 8
    return part3.gpt.GPT(config)


@pytest.mark.parametrize("use_cache", [False, True])
def test_generation_stays_on_the_device(part3, use_cache):
    assert part3.train  # imported with real tensors
    with fake_cuda():
        model, idx = on_cuda(lambda: tiny(part3)), torch.zeros(2, 3, dtype=torch.long, device="cuda")
        for flags in ({}, {"do_sample": True, "top_k": 3}, {"do_sample": True, "top_p": 0.5}, {"stop": [[1], [2, 3]]}):
            assert model.generate(idx, 7, use_cache=use_cache, **flags).is_cuda


def test_texts_with_stop_strings_stay_on_the_device(part3):
    """All rows end at their first token, the "a" that each fake token is."""
    assert part3.train and part3.generate
    vocabulary = part3.vocabulary.Characters.of("abcdefghijk")
    with fake_cuda():
        model = on_cuda(lambda: tiny(part3))
        model.to = lambda device: None  # it is there; fake weights cannot be moved
        texts = part3.generate.generate(model, "", "cab", 2, 7, device="cuda", stop=["a"], top_p=0.9,
                                        vocabulary=vocabulary, verbose=False)  # fmt: skip
    assert texts == ["cab", "cab"]


def test_the_report_s_attention_stays_on_the_device(part3, repository):
    assert part3.gpt
    language = load_script(repository / "report" / "language.py")
    with fake_cuda():
        idx = torch.zeros(1, 5, dtype=torch.long, device="cuda")
        weights = language.attention_weights(on_cuda(lambda: tiny(part3)).eval(), idx)
        assert weights.is_cuda and language.mean_distance(weights).is_cuda


def test_steps_stay_on_the_device(part3):
    assert part3.train  # imported with real tensors
    with fake_cuda(), torch.no_grad():
        data = part3.dataset.TextDataset(None, None, 8, text="abcdefghijk" * 3)
        data.to(torch.device("cuda"))
        batch = data.__getitems__([0, 3])
        module = part3.train.GPTLightningModule(Namespace(), on_cuda(lambda: tiny(part3)), data)
        assert module.training_step(batch, 0).is_cuda and module.validation_step(batch, 0).is_cuda
        assert module._round.sums.is_cuda and module._val.sums.is_cuda
        devices = []
        reduce = Namespace(reduce=lambda value, reduce_op: devices.append(value.device.type) or value)
        module._round.read(Namespace(strategy=reduce))
        part3.callbacks.StopAtNonFiniteLoss()._add(1, module.loss_and_hits(batch)[0])
        assert devices == ["cuda"]
        with Copies() as copies:
            module.training_step(data.__getitems__([0, 3]), 1)
        assert copies.found == ["_to_copy"], "a step copies the indices of its windows alone"


def test_losses_are_checked_on_the_device(part3):
    stop, seen = part3.callbacks.StopAtNonFiniteLoss(), []
    with fake_cuda():
        strategy = Namespace(reduce=lambda value, reduce_op: seen.append(value.device.type) or torch.tensor(0.5))
        stop._add(1, torch.zeros((), device="cuda"))
        trainer = Namespace(strategy=strategy, checkpoint_callback=None)
        with pytest.raises(part3.inputs.NotFiniteError):  # 0.5, the value of each fake tensor, is no infinity
            stop.check(trainer, None)
    assert seen == ["cuda"]

"""Flags of the three parts: what is repeated where an interrupted run goes on, and what it takes over."""

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch


@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_an_interrupted_run_goes_on_with_the_flags_that_were_given(request, name):
    """All but those that the run's identity fixes, so that a higher number of epochs is not lost."""
    inputs = request.getfixturevalue(name).inputs
    own = {"part1": ["--epochs", "160", "--no-compile"], "part2": ["--epochs", "160", "--no-cuda"],
           "part3": ["--max_steps", "7", "--compile"]}[name]  # fmt: skip
    args = inputs.parse_args(["--resume", "version_3", "--log_dir", "runs", "--seed", "4", "--num_workers", "2", *own])
    again = inputs.parse_args(inputs.flags_to_repeat(args))
    assert again.given == args.given - {"resume", "log_dir", "seed"}
    assert all(getattr(again, flag) == getattr(args, flag) for flag in again.given)


def test_a_run_that_was_kept_off_the_gpu_stays_off_it(part2):
    """Unless it is said otherwise."""
    inputs = part2.inputs
    flags = vars(inputs.parse_args(["--no-cuda"]))
    assert inputs.merge_resumed_flags(inputs.parse_args([]), flags).no_cuda
    there = inputs.merge_resumed_flags(inputs.parse_args(["--cuda"]), flags)
    assert not there.no_cuda and inputs.flags_to_repeat(there) == ["--cuda"]
    assert not inputs.parse_args([]).no_cuda


@pytest.mark.parametrize("name", ["part1", "part2"])
def test_batches_are_pinned_only_where_that_is_asked_for(request, name, monkeypatch):
    """A training on the CPU leaves a GPU that is there alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    digits = request.getfixturevalue(name).mnist.digits
    assert not digits()[0].pin_memory and digits(pin_memory=True)[0].pin_memory


@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_a_compiled_run_is_continued_compiled(request, name):
    """Unless it is said otherwise; an interpreted run has other last bits."""
    inputs = request.getfixturevalue(name).inputs
    flags = vars(inputs.parse_args(["--compile"]))
    assert inputs.merge_resumed_flags(inputs.parse_args([]), flags).compile
    assert not inputs.merge_resumed_flags(inputs.parse_args(["--no-compile"]), flags).compile


def test_a_path_to_pretrained_weights_is_kept_as_text(part3):
    """Checkpoints hold nothing that would have to be trusted, and so no path."""
    assert part3.inputs.with_defaults(Namespace(use_pretrained=Path("model"))).use_pretrained == "model"
    assert part3.inputs.with_defaults(Namespace(use_pretrained=None)).use_pretrained is None
    assert part3.inputs.with_defaults(Namespace(use_pretrained=True)).use_pretrained == "hub"


@pytest.mark.parametrize(("name", "function"), [("part1", "train_pl.train_vae"), ("part2", "train.main"),
                                                ("part3", "train.train")])  # fmt: skip
def test_where_a_resumed_run_is_written(request, name, function, tmp_path, monkeypatch):
    """Its own folder is checked, and not that of new runs."""
    part = request.getfixturevalue(name)
    module, _, function = function.partition(".")
    module = getattr(part, module)
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{i} times {i} is {i * i}.\n" for i in range(50)))
    small = {
        "part1": {"dataset": "digits", "batch_size": 1350, "num_filters": 4, "z_dim": 2, "epochs": 1},
        "part2": {"dataset": "digits", "batch_size": 1347, "z_dim": 2, "epochs": 1},
        "part3": {"txt_file": str(text), "model_type": "gpt-nano", "block_size": 13, "train_batch_size": 5,
                  "max_steps": 1, "generate_batch_size": 1},
    }[name]  # fmt: skip
    getattr(module, function)(Namespace(**small, log_dir=str(tmp_path / "old")))
    (run,) = (path.parent for path in (tmp_path / "old").rglob("checkpoints"))
    longer = {"max_steps": 2} if name == "part3" else {"epochs": 2}

    def refuse(folder: Path, flag: str, keep: bool) -> None:
        raise part.inputs.InputError(f"{folder.resolve()}: {flag}")

    monkeypatch.setattr(part.inputs, "ensure_writable", refuse)
    with pytest.raises(part.inputs.InputError) as error:
        getattr(module, function)(Namespace(**{**small, **longer}, log_dir=str(tmp_path / "new"), resume=str(run)))
    assert str(error.value) == f"{run.resolve()}: run to --resume"


@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_a_run_from_before_a_flag_came_is_continued_with_its_default(request, name):
    inputs = request.getfixturevalue(name).inputs
    flags = vars(inputs.parse_args([]))
    older = {flag: value for flag, value in flags.items() if flag not in ("devices", "seed")}
    args = inputs.merge_resumed_flags(inputs.parse_args([]), older)
    assert args.devices == flags["devices"] and args.seed == flags["seed"]


@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_apple_s_gpus_have_no_float64(request, name, tmp_path, monkeypatch):
    part = request.getfixturevalue(name)
    args = part.inputs.with_defaults(Namespace(precision="64-true"))
    place = SimpleNamespace(root_device=torch.device("mps"))
    trainer = SimpleNamespace(strategy=place, device=place.root_device)
    monkeypatch.setattr("pytorch_lightning.Trainer", lambda **kwargs: trainer)
    with pytest.raises(part.inputs.InputError, match="--precision 64-true needs float64"):
        if name == "part1":
            settings = part.inputs.resolve_settings(Namespace(precision="64-true", log_dir=tmp_path), None)
            part.training_run.make_trainer(settings)
        elif name == "part2":
            monkeypatch.setattr(part.training_run, "Fabric", lambda **kwargs: trainer)
            part.training_run.start_fabric(args)
        else:
            settings = part.inputs.resolve_settings(Namespace(precision="64-true", log_dir=tmp_path), None)
            part.training_run.make_trainer(settings, 1000, "a text")


@pytest.mark.parametrize("name", ["part1", "part3"])
def test_what_a_run_is_said_to_run_on(request, name):
    run_folder = request.getfixturevalue(name).run_folder
    trainer = SimpleNamespace(num_devices=1, num_nodes=1, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    one = run_folder.devices_of(trainer)
    assert f"(cpu, {torch.get_num_threads()} threads)" in one
    trainer.num_devices, trainer.num_nodes = 2, 3
    assert run_folder.devices_of(trainer) == f"6 x {one}"


@pytest.mark.parametrize(
    ("cuda", "mps", "accelerator", "device"),
    [
        (False, False, "auto", None),
        (True, False, "auto", "cuda"),
        (False, True, "gpu", "mps"),
        (True, True, "cpu", None),
    ],
)
def test_the_average_of_the_weights_is_kept_where_they_are(
    part1, tmp_path, monkeypatch, cuda, mps, accelerator, device
):
    """Lightning would copy them before it moves them to the GPU."""
    given = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr("pytorch_lightning.Trainer", lambda **kwargs: given.update(kwargs))
    flags = Namespace(ema=0.5, accelerator=accelerator, log_dir=tmp_path)
    part1.training_run.make_trainer(part1.inputs.resolve_settings(flags, None))
    (average,) = (callback for callback in given["callbacks"] if type(callback).__name__ == "MovingAverage")
    assert (average._device and average._device.type) == device


@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_a_command_is_written_for_the_shell_at_hand(request, name, monkeypatch):
    run_folder = request.getfixturevalue(name).run_folder
    assert run_folder.shell_command(["a b", "c"]) == "'a b' c"
    monkeypatch.setattr(run_folder, "os", SimpleNamespace(name="nt"))
    assert run_folder.shell_command(["C:\\a b", "c"]) == '"C:\\a b" c'

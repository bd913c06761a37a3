"""Bad input to part 2: one sentence that says what is wrong and what to do, exit code 2, and nothing lost."""

import io
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch

SMALL = ["--dataset", "digits", "--batch_size", "60", "--z_dim", "2", "--epochs", "1"]


@pytest.fixture(autouse=True)
def _tiny_digits(part2, tiny_digits):
    with tiny_digits(part2):
        yield


@pytest.fixture
def fails(part2, capsys):
    """Runs the command line and returns its one line of error."""

    def run(*argv: str) -> str:
        try:
            code = part2.train.cli(list(argv))
        except SystemExit as stop:
            code = stop.code
        error = capsys.readouterr().err
        assert code == 2
        assert error.startswith("train.py: error: ") and error.count("\n") == 1, error
        return error

    return run


@pytest.fixture(scope="module")
def one_epoch(_parts, tiny_digits, tmp_path_factory) -> Path:
    """Directory of a run of one epoch, which stays as it is."""
    log_dir = tmp_path_factory.mktemp("one_epoch")
    with _parts["part2"].imported() as part2, tiny_digits(part2):
        part2.train.main(part2.inputs.parse_args([*SMALL, "--log_dir", str(log_dir)]))
    return log_dir / "version_0"


@pytest.fixture
def finished(one_epoch, tmp_path) -> Path:
    """Its copy, which may be damaged."""
    return Path(shutil.copytree(one_epoch, tmp_path / "finished" / "version_0"))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--z_dim", "0"), ("--z_dim", "-3"), ("--batch_size", "0"), ("--epochs", "0"), ("--lambda_", "1.01"),
        ("--lambda_", "-0.1"), ("--lambda_", "nan"), ("--ae_lr", "0"), ("--ae_lr", "nan"), ("--d_lr", "-1"),
        ("--d_lr", "inf"), ("--seed", "-1"), ("--seed", str(2**32)), ("--devices", "0"), ("--devices", "many"),
        ("--num_nodes", "0"), ("--num_workers", "-1"),
    ],
)  # fmt: skip
def test_values_that_make_no_sense(fails, tmp_path, flag, value):
    assert flag in fails("--dataset", "digits", "--log_dir", str(tmp_path / "logs"), f"{flag}={value}")
    assert not (tmp_path / "logs").exists()


def test_a_gpu_that_is_not_there(fails, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert "--cuda: PyTorch finds no GPU here" in fails(*SMALL, "--cuda", "--log_dir", str(tmp_path))
    assert not list(tmp_path.rglob("version_*"))


@pytest.mark.parametrize(
    "argv",
    [
        ["--z_dim", "two"], ["--dataset", "cats"], ["--precision", "8"], ["--precision", "16-true"],
        ["--strategy", "hope"], ["--colour"], ["--cuda", "--no-cuda"],
    ],
)  # fmt: skip
def test_values_that_cannot_be_parsed(fails, argv):
    assert argv[0] in fails(*argv)


@pytest.mark.parametrize("folder", ["/proc/nowhere", "a file"])
def test_a_log_folder_that_cannot_be_written(fails, tmp_path, folder):
    if folder == "a file":
        folder = tmp_path / "file"
        folder.write_text("kept")
    error = fails(*SMALL, "--log_dir", str(folder))
    assert f"cannot write into {folder}" in error and "--log_dir" in error


def test_no_mnist_and_no_network(part2, fails, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(part2.download.urllib.request, "urlopen", unreachable)
    error = fails("--data_dir", str(tmp_path / "data"), "--log_dir", str(tmp_path / "logs"))
    where = str(tmp_path / "data" / "MNIST" / "raw")
    for part in (
        where,
        "train-images-idx3-ubyte",
        "the directory that holds MNIST/raw with --data_dir",
        "--dataset digits",
    ):
        assert part in error
    assert not (tmp_path / "data").exists(), "no empty folders are left"
    assert not (tmp_path / "logs").exists(), "no run was begun"


@pytest.mark.parametrize("existing", ["data", "data/MNIST/raw", "data/MNIST/raw/mine"])
def test_a_failed_download_leaves_the_folders_that_were_there(part2, tmp_path, monkeypatch, existing):
    def unreachable(*args, **kwargs):
        raise TimeoutError

    monkeypatch.setattr(part2.download.urllib.request, "urlopen", unreachable)
    (tmp_path / existing).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(part2.inputs.NoDataError, match=r"the download failed: .* did not answer for 5 seconds"):
        part2.mnist.mnist(root=tmp_path / "data")
    assert sorted(tmp_path.rglob("*")) == before


def test_mnist_that_must_not_be_downloaded(part2, tmp_path):
    for function in (part2.mnist.mnist, part2.mnist.mnist_test):
        with pytest.raises(part2.inputs.InputError, match="not asked for"):
            function(root=tmp_path, download=False)


def test_a_truncated_data_file(fails, fake_mnist, tmp_path):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (fake_mnist / "MNIST" / "raw").iterdir():
        (raw / file.name).symlink_to(file)
    labels = raw / "train-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.unlink()
    labels.write_bytes(content[:-1000])
    error = fails("--data_dir", str(tmp_path / "data"), "--log_dir", str(tmp_path / "logs"))
    assert str(labels) in error and "59,008 bytes" in error and "60,008" in error
    labels.write_bytes(b"x" * len(content))
    assert "not MNIST's" in fails("--data_dir", str(tmp_path / "data"), "--log_dir", str(tmp_path / "logs"))


def test_an_interrupted_download_leaves_nothing_half_done(part2, tmp_path, monkeypatch):
    class Interrupted(io.BytesIO):
        def read(self, *args):
            raise ConnectionError("connection reset")

    monkeypatch.setattr(part2.download.urllib.request, "urlopen", lambda *args, **kwargs: Interrupted())
    with pytest.raises(part2.inputs.InputError, match="connection reset"):
        part2.mnist.mnist(root=tmp_path, download=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run", ["newest", "version_7", "/nowhere/at/all"])
def test_no_run_to_resume(fails, tmp_path, run):
    assert "name a run directory" in fails(*SMALL, "--log_dir", str(tmp_path), "--resume", run)


def test_a_truncated_checkpoint(fails, finished):
    file = finished / "checkpoints" / "model_checkpoint.pt"
    file.write_bytes(file.read_bytes()[:5000])
    assert f"{file} is damaged" in fails(*SMALL, "--resume", str(finished))


@pytest.mark.parametrize("content", [{"weights": torch.zeros(3)}, torch.zeros(3), [1, 2]])
def test_a_checkpoint_of_something_else(fails, finished, content):
    torch.save(content, finished / "checkpoints" / "model_checkpoint.pt")
    assert "not a checkpoint of this adversarial autoencoder" in fails(*SMALL, "--resume", str(finished))


def test_a_checkpoint_of_another_model(fails, finished):
    file = finished / "checkpoints" / "model_checkpoint.pt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["state_dict"] = {"layer.weight": torch.zeros(3, 5)}
    torch.save(checkpoint, file)
    assert "another model" in fails(*SMALL, "--resume", str(finished))


def test_a_checkpoint_that_would_run_code(part2, tmp_path):
    """Pickles can hold any call; here one that would create a file."""

    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    torch.save({"state_dict": Harmful()}, tmp_path / "x.pt")
    with pytest.raises(part2.inputs.InputError, match="damaged or no checkpoint"):
        part2.run_folder.read_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(("flag", "value"), [("--z_dim", "5"), ("--lambda_", "0.5"), ("--d_lr", "0.01")])
def test_a_resumed_run_keeps_what_it_was_started_with(fails, finished, flag, value):
    before = (finished / "metrics.csv").read_bytes()
    error = fails("--resume", str(finished), "--log_dir", str(finished.parent), "--epochs", "2", flag, value)
    assert f"{flag} {value} was given" in error and "new run without --resume" in error
    assert (finished / "metrics.csv").read_bytes() == before


def test_a_checkpoint_outside_a_run_directory(fails, part2, finished, tmp_path, capsys):
    """What comes of it would be written into the folder above."""
    (tmp_path / "downloads").mkdir()
    file = shutil.copy(finished / "checkpoints" / "model_checkpoint.pt", tmp_path / "downloads")
    before = sorted(tmp_path.rglob("*"))
    error = fails("--resume", str(file), "--epochs", "2", "--log_dir", str(finished.parent))
    assert f"{file} is not in a run directory: give the run directory to --resume" in error
    assert part2.generate.main(["--checkpoint", str(file)]) == 2
    assert "or a directory for the pictures to --output_dir" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_fewer_epochs_than_the_run_has(fails, finished):
    file = finished / "checkpoints" / "model_checkpoint.pt"
    checkpoint = torch.load(file, weights_only=True)
    torch.save({**checkpoint, "epoch": 3}, file)
    error = fails("--log_dir", str(finished.parent), "--resume", "--epochs", "2")
    assert "has already finished epoch 3: raise --epochs" in error


def test_a_complete_run_keeps_its_summary(fails, finished):
    before = (finished / "summary.json").read_text()
    assert "has already finished epoch 1: raise --epochs" in fails("--log_dir", str(finished.parent), "--resume")
    assert (finished / "summary.json").read_text() == before


def test_a_seed_that_torch_does_not_take(part2, finished, capsys):
    assert part2.generate.main(["--checkpoint", str(finished), "--seed", str(2**64)]) == 2
    assert "--seed must be a whole number of at most 4294967295" in capsys.readouterr().err


def test_an_interrupted_checkpoint_leaves_the_one_before(part2, tmp_path, monkeypatch):
    path = tmp_path / "checkpoints" / "model_checkpoint.pt"
    part2.run_folder.write_checkpoint(path, {"epoch": 1})

    def half(content, file):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space"):
        part2.run_folder.write_checkpoint(path, {"epoch": 2})
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(path.parent.iterdir()) == [path], "nothing half done lies about"


@pytest.mark.parametrize(
    ("call", "message"),
    [(3, "recon_loss is not finite in epoch 2, step 2 "), (4, "test_recon_loss is not finite in epoch 2, step 2 ")],
)
def test_a_loss_that_is_not_finite(part2, tmp_path, monkeypatch, call, message):
    """Weights are spoilt after a step of the second epoch: the message names the next one, or the test after the last
    one, and the first epoch's checkpoint stays."""
    original = part2.models.AdversarialAE.get_loss_discriminator
    calls = []

    def spoil(self, z_fake):
        calls.append(len(calls))
        if len(calls) == call:
            torch.nn.init.constant_(self.decoder.linear[0].weight, torch.nan)
        return original(self, z_fake)

    monkeypatch.setattr(part2.models.AdversarialAE, "get_loss_discriminator", spoil)
    args = Namespace(dataset="digits", batch_size=60, z_dim=2, epochs=3, log_dir=str(tmp_path))
    with pytest.raises(part2.inputs.NotFiniteError, match=f"{message}.*the checkpoint of the epoch before it is kept"):
        part2.train.main(args)
    run = tmp_path / "version_0"
    checkpoint = torch.load(run / "checkpoints" / "model_checkpoint.pt", weights_only=True)
    assert checkpoint["epoch"] == 1
    assert all(weight.isfinite().all() for weight in checkpoint["state_dict"].values())
    assert len((run / "metrics.csv").read_text().splitlines()) == 2, "the header and the first epoch"


def test_a_loss_that_is_not_finite_in_the_first_epoch(part2, fails, tmp_path, monkeypatch):
    original = part2.models.AdversarialAE.get_loss_autoencoder

    def spoilt(self, *args):
        loss, values = original(self, *args)
        return loss, {**values, "recon_loss": values["recon_loss"] * torch.nan}

    monkeypatch.setattr(part2.models.AdversarialAE, "get_loss_autoencoder", spoilt)
    error = fails(*SMALL, "--log_dir", str(tmp_path))
    assert "in epoch 1, step 1 of the epoch" in error and "there is no checkpoint yet" in error and "kept" not in error
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("args", "num_gpus", "expected"),
    [
        ({"devices": "1"}, 0, "auto"),
        ({"devices": "auto"}, 0, "auto"),
        ({"devices": "auto"}, 4, "ddp_find_unused_parameters_true"),
        ({"devices": "2"}, 0, "ddp_find_unused_parameters_true"),
        ({"devices": "1", "num_nodes": 2}, 1, "ddp_find_unused_parameters_true"),
        ({"devices": "1", "strategy": "ddp"}, 1, "ddp_find_unused_parameters_true"),
    ],
)
def test_several_processes_may_leave_parameters_out(part2, args, num_gpus, expected):
    args = Namespace(**{"num_nodes": 1, "strategy": "auto", **args})
    assert part2.inputs.resolve_strategy(args, num_gpus) == expected

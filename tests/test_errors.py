"""Bad input: one sentence that says what is wrong and what to do, exit code 2, and nothing lost."""

import io
import shutil
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import write_idx

SMALL = ["--dataset", "digits", "--batch_size", "675", "--num_filters", "2", "--z_dim", "2", "--epochs", "1"]


@pytest.fixture
def fails(part1, capsys):
    """Runs the command line and returns its one line of error."""

    def run(*argv: str) -> str:
        try:
            code = part1.train.main(list(argv))
        except SystemExit as stop:
            code = stop.code
        error = capsys.readouterr().err
        assert code == 2
        assert error.startswith("train.py: error: ") and error.count("\n") == 1, error
        return error

    return run


@pytest.fixture(scope="module")
def one_epoch(_parts, tmp_path_factory) -> Path:
    """Log directory of a run of one epoch, which stays as it is."""
    log_dir = tmp_path_factory.mktemp("one_epoch")
    with _parts["part1"].imported() as part1:
        part1.train_pl.train_vae(part1.inputs.parse_args([*SMALL, "--log_dir", str(log_dir)]))
    return log_dir


@pytest.fixture
def finished(one_epoch, tmp_path) -> Path:
    """Directory of a run of one epoch."""
    return shutil.copytree(one_epoch, tmp_path / "finished") / "lightning_logs" / "version_0"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--z_dim", "0"), ("--z_dim", "-3"), ("--num_filters", "0"), ("--batch_size", "0"), ("--epochs", "0"),
        ("--lr", "0"), ("--lr", "nan"), ("--lr", "inf"), ("--seed", "-1"), ("--seed", str(2**32)),
        ("--devices", "0"), ("--devices", "many"), ("--num_nodes", "0"), ("--num_workers", "-1"),
        ("--importance_samples", "-1"), ("--ema", "1"), ("--ema", "nan"),
    ],
)  # fmt: skip
def test_values_that_make_no_sense(fails, tmp_path, flag, value):
    assert flag in fails("--dataset", "digits", "--log_dir", str(tmp_path / "logs"), f"{flag}={value}")
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["--z_dim", "two"],
        ["--dataset", "cats"],
        ["--precision", "8"],
        ["--precision", "16-true"],
        ["--colour"],
        ["--strategy", "hope"],
        ["--strategy", "ddp_spawn"],
        ["--accelerator", "abacus"],
    ],
)
def test_values_that_cannot_be_parsed(fails, argv):
    assert argv[0] in fails(*argv)


def test_more_devices_than_there_are(fails, tmp_path):
    assert "--devices is 9999" in fails(*SMALL, "--devices", "9999", "--log_dir", str(tmp_path))


def test_a_processor_that_is_not_there(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    error = fails(*SMALL, "--accelerator", "gpu", "--log_dir", str(tmp_path))
    assert "--accelerator gpu: PyTorch finds no GPU here: leave the flag out" in error
    assert not list(tmp_path.rglob("version_*"))


@pytest.mark.parametrize(("flag", "value"), [("strategy", "ddp_spawn"), ("accelerator", "tpu"), ("dataset", "cats")])
def test_a_namespace_with_a_value_that_there_is_not(part1, tmp_path, flag, value):
    with pytest.raises(part1.inputs.InputError, match=f"--{flag} must be one of .*, not {value}"):
        part1.train_pl.train_vae(Namespace(**{flag: value}, log_dir=str(tmp_path)))


@pytest.mark.parametrize("folder", ["/proc/nowhere", "a file"])
def test_a_log_folder_that_cannot_be_written(fails, tmp_path, folder):
    if folder == "a file":
        folder = tmp_path / "file"
        folder.write_text("kept")
    error = fails(*SMALL, "--log_dir", str(folder))
    assert f"cannot write into {folder}" in error and "--log_dir" in error


def test_no_mnist_and_no_network(part1, fails, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(part1.download.urllib.request, "urlopen", unreachable)
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
    assert not (tmp_path / "logs" / "lightning_logs").exists()


@pytest.mark.parametrize("existing", ["data", "data/MNIST/raw", "data/MNIST/raw/mine"])
def test_a_failed_download_leaves_the_folders_that_were_there(part1, tmp_path, monkeypatch, existing):
    def unreachable(*args, **kwargs):
        raise TimeoutError

    monkeypatch.setattr(part1.download.urllib.request, "urlopen", unreachable)
    (tmp_path / existing).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(part1.inputs.NoDataError, match=r"the download failed: .* did not answer for 5 seconds"):
        part1.mnist.mnist(root=tmp_path / "data")
    assert sorted(tmp_path.rglob("*")) == before


def test_mnist_that_must_not_be_downloaded(part1, tmp_path):
    with pytest.raises(part1.inputs.InputError, match="not asked for"):
        part1.mnist.mnist(root=tmp_path, download=False)


@pytest.fixture
def broken_mnist(fake_mnist, tmp_path) -> Path:
    """A copy of the made-up MNIST whose files may be damaged."""
    shutil.copytree(fake_mnist, tmp_path / "data", copy_function=shutil.copy)
    return tmp_path / "data"


def test_a_truncated_file(fails, broken_mnist, tmp_path):
    file = broken_mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1000])
    error = fails("--data_dir", str(broken_mnist), "--log_dir", str(tmp_path / "logs"))
    assert str(file) in error and "47,039,016 bytes" in error and "47,040,016" in error


def test_images_of_another_shape(fails, broken_mnist, tmp_path):
    file = broken_mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    write_idx(file, np.zeros((10_000, 14, 56), dtype=np.uint8))
    error = fails("--data_dir", str(broken_mnist), "--log_dir", str(tmp_path / "logs"))
    assert "(10000, 14, 56)" in error and "(10000, 28, 28)" in error


def test_a_file_of_something_else(fails, broken_mnist, tmp_path):
    file = broken_mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    file.write_bytes(b"x" * file.stat().st_size)
    assert "not MNIST's" in fails("--data_dir", str(broken_mnist), "--log_dir", str(tmp_path / "logs"))


def test_an_interrupted_download_leaves_nothing_half_done(part1, tmp_path, monkeypatch):
    class Interrupted(io.BytesIO):
        def read(self, *args):
            raise ConnectionError("connection reset")

    monkeypatch.setattr(part1.download.urllib.request, "urlopen", lambda *args, **kwargs: Interrupted())
    with pytest.raises(part1.inputs.InputError, match="connection reset"):
        part1.mnist.mnist(root=tmp_path, download=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run", ["newest", "version_7", "/nowhere/at/all"])
def test_no_run_to_resume(fails, tmp_path, run):
    assert "name a run directory" in fails(*SMALL, "--log_dir", str(tmp_path), "--resume", run)


def test_a_truncated_checkpoint(fails, finished):
    last = finished / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    assert f"{last} is damaged" in fails(*SMALL, "--resume", str(finished))


@pytest.mark.parametrize("content", [{"weights": torch.zeros(3)}, torch.zeros(3), [1, 2]])
def test_a_checkpoint_of_something_else(fails, finished, content):
    torch.save(content, finished / "checkpoints" / "last.ckpt")
    assert "not a checkpoint of this VAE" in fails(*SMALL, "--resume", str(finished))


def test_a_checkpoint_of_another_model(fails, finished):
    last = finished / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["state_dict"] = {"layer.weight": torch.zeros(3, 5)}
    torch.save(checkpoint, last)
    assert "another model" in fails(*SMALL, "--resume", str(finished))


def test_a_checkpoint_that_would_run_code(part1, tmp_path):
    """Pickles can hold any call; here one that would create a file."""

    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    torch.save({"state_dict": Harmful()}, tmp_path / "x.ckpt")
    with pytest.raises(part1.inputs.InputError, match="damaged or no checkpoint"):
        part1.run_folder.read_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(("flag", "value"), [("--z_dim", "5"), ("--lr", "0.01"), ("--batch_size", "100")])
def test_a_resumed_run_keeps_what_it_was_started_with(fails, finished, flag, value):
    before = (finished / "metrics.csv").read_bytes()
    error = fails("--resume", str(finished), "--epochs", "2", flag, value)
    assert f"{flag} {value} was given" in error and "new run without --resume" in error
    assert (finished / "metrics.csv").read_bytes() == before


def test_a_checkpoint_outside_a_run_directory(fails, part1, finished, tmp_path, capsys):
    """What comes of it would be written into the folder above."""
    (tmp_path / "downloads").mkdir()
    (tmp_path / "summary.json").write_text("of something else")
    file = shutil.copy(finished / "checkpoints" / "last.ckpt", tmp_path / "downloads")
    error = fails("--resume", str(file), "--epochs", "2", "--log_dir", str(tmp_path / "logs"))
    assert f"{file} is not in a run directory: give the run directory to --resume" in error
    assert part1.generate.main(["--checkpoint", str(file)]) == 2
    assert "or a directory for the pictures to --output_dir" in capsys.readouterr().err
    assert (tmp_path / "summary.json").read_text() == "of something else"
    assert {path.name for path in tmp_path.iterdir()} == {"downloads", "finished", "summary.json"}


def test_fewer_epochs_than_the_run_has(fails, part1, finished):
    args = ["--log_dir", str(finished.parents[1]), "--resume", "--epochs"]
    part1.train_pl.train_vae(part1.inputs.parse_args([*args, "2"]))
    assert "already finished epoch 2: raise --epochs" in fails(*args, "1")


def test_a_complete_run_keeps_its_summary(fails, part1, finished):
    """It has nothing left to do, unless something more is asked of it."""
    log_dir, before = str(finished.parents[1]), (finished / "summary.json").read_text()
    assert "already finished epoch 1: raise --epochs" in fails("--log_dir", log_dir, "--resume")
    assert (finished / "summary.json").read_text() == before
    part1.train_pl.train_vae(part1.inputs.parse_args(["--log_dir", log_dir, "--resume", "--importance_samples", "2"]))
    assert '"importance_samples": 2' in (finished / "summary.json").read_text()


def test_a_seed_that_torch_does_not_take(part1, finished, capsys):
    with pytest.raises(SystemExit, match="2"):
        part1.generate.main(["--checkpoint", str(finished), "--seed", str(2**64)])
    assert "--seed must be a whole number of at most 4294967295" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("batch_idx", "message"),
    [(1, "the loss is not finite in epoch 2, step 3 "), (4, "the validation loss is not finite in epoch 2, step 5 ")],
)
def test_a_loss_that_is_not_finite(part1, tmp_path, monkeypatch, batch_idx, message):
    """Weights are spoilt after a step of the second epoch: the message names the next one, or the validation after the
    last one, and the first epoch's checkpoints stay."""
    original = part1.train_pl.VAE.on_train_batch_end

    def spoil(self, *args):
        original(self, *args)
        if self.current_epoch == 1 and args[-1] == batch_idx:
            torch.nn.init.constant_(self.decoder.linear[0].weight, torch.nan)

    monkeypatch.setattr(part1.train_pl.VAE, "on_train_batch_end", spoil)
    args = Namespace(dataset="digits", batch_size=300, num_filters=4, z_dim=2, epochs=3, log_dir=str(tmp_path))
    with pytest.raises(part1.inputs.NotFiniteError, match=f"{message}.*checkpoints of the epochs before it are kept"):
        part1.train_pl.train_vae(args)
    run = tmp_path / "lightning_logs" / "version_0"
    for which in ("best", "last"):
        checkpoint = torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)
        assert checkpoint["epoch"] == 0
        assert all(weight.isfinite().all() for weight in checkpoint["state_dict"].values())
    assert len((run / "metrics.csv").read_text().splitlines()) == 2, "the header and the first epoch"


@pytest.mark.parametrize(("elsewhere", "named"), [(torch.inf, 73), (9.0, 60)])
def test_losses_are_looked_at_once_in_fifty_steps(part1, elsewhere, named):
    """Each look waits for the device. The message names the first bad step of all processes: step 73 here, and step 60,
    the tenth of its fifty, in another process."""
    looks = []

    def reduce(first, reduce_op):
        looks.append(first.item())
        return torch.minimum(first, torch.tensor(elsewhere)) if len(looks) == 2 else first

    trainer = SimpleNamespace(is_last_batch=False, current_epoch=0, strategy=SimpleNamespace(reduce=reduce))
    stop = part1.callbacks.StopAtNonFiniteLoss()
    with pytest.raises(part1.inputs.NotFiniteError, match=f"epoch 1, step {named} of the epoch"):
        for step in range(1, 200):
            loss = torch.tensor(torch.inf if step in (73, 75) else 1.0)
            stop.on_train_batch_end(trainer, None, {"loss": loss}, None, step - 1)
    assert looks == [torch.inf, 22.0], "after steps 50 and 100"


def test_a_loss_that_is_not_finite_in_the_first_epoch(part1, fails, tmp_path, monkeypatch):
    monkeypatch.setattr(part1.train_pl, "KLD", lambda mean, log_std: mean.sum(dim=-1) * torch.nan)
    error = fails(*SMALL, "--log_dir", str(tmp_path))
    assert "in epoch 1, step 1 of the epoch" in error and "there is no checkpoint yet" in error and "kept" not in error
    assert not list(tmp_path.rglob("*.ckpt"))

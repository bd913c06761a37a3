"""Paths of all kinds: files go where the user sees them, and what cannot be a path is said in one sentence."""

import errno
import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def cli(part1):
    return part1.cli


def test_paths_are_absolute_and_keep_links(cli, tmp_path, monkeypatch):
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/below")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "real"))
    assert cli.resolve_path("link/run") == tmp_path / "link" / "run"
    assert cli.resolve_path("~/run") == tmp_path / "real" / "run"
    assert cli.resolve_path("with blank/данные") == tmp_path / "with blank" / "данные"
    assert cli.resolve_path("link/../run") == tmp_path / "real" / "run", "as the system reads it"
    assert cli.resolve_path("../data/", default="../data/") == cli.HERE.parent / "data"


@pytest.mark.parametrize("path", ["", "a\0b", "~nobody_here/x"])
def test_what_cannot_be_a_path(cli, path):
    with pytest.raises(cli.InputError, match="give"):
        cli.resolve_path(path)


def test_a_current_directory_that_is_gone(cli, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(cli.InputError, match="current directory"):
        cli.resolve_path("logs")


@pytest.mark.parametrize("keep", [True, False])
def test_a_directory_is_created_or_only_tried(cli, tmp_path, keep):
    cli.ensure_writable(tmp_path / "a" / "b", "--log_dir", keep=keep)
    assert (tmp_path / "a" / "b").is_dir() == keep and (tmp_path / "a").exists() == keep


@pytest.mark.parametrize("name", ["x" * 300, "file", "file/below", "below/" + "x" * 300])
def test_a_directory_that_cannot_be_written_leaves_nothing(cli, tmp_path, name):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(cli.InputError, match=r"cannot write into .*: give another --log_dir"):
        cli.ensure_writable(tmp_path / name, "--log_dir")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "kept"


def test_the_newest_run_may_be_a_link(cli, tmp_path):
    """And links may form a circle."""
    (tmp_path / "disk" / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "disk" / "run" / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "version_0").symlink_to(tmp_path / "disk" / "run")
    (tmp_path / "disk" / "circle").symlink_to(tmp_path)
    found = cli.newest_file(tmp_path / "logs", "checkpoints", "last.ckpt")
    assert found == tmp_path / "logs" / "version_0" / "checkpoints" / "last.ckpt"
    assert cli.newest_file(tmp_path / "logs", "checkpoints", "best.ckpt") is None


@pytest.mark.parametrize("run", ["x" * 300, "/dev/null/run", ".", "a\nb", "\udc80"])
@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_a_run_that_there_is_not(request, tmp_path, monkeypatch, capsys, name, run):
    part = request.getfixturevalue(name)
    monkeypatch.chdir(tmp_path)
    main = part.train.cli if name == "part2" else part.train.main
    assert main(["--resume", run, "--log_dir", str(tmp_path / "logs")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "name a run" in error
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def one_epoch(_parts, tiny_digits, tmp_path_factory) -> Path:
    """Log directory of a run of part 2."""
    logs = tmp_path_factory.mktemp("one_epoch")
    argv = ["--dataset", "digits", "--batch_size", "60", "--z_dim", "2", "--epochs", "1", "--log_dir", str(logs)]
    with _parts["part2"].imported() as part2, tiny_digits(part2):
        assert part2.train.cli(argv) == 0
    return logs


@pytest.mark.parametrize("linked", ["the run", "the checkpoints", "the checkpoint"])
def test_a_run_of_which_a_part_is_a_link_is_resumed_where_the_user_sees_it(
    part2, tiny_digits, one_epoch, tmp_path, linked
):
    logs, disk = shutil.copytree(one_epoch, tmp_path / "logs"), tmp_path / "disk"
    run = logs / "version_0"
    file = {"the run": run, "the checkpoints": run / "checkpoints",
            "the checkpoint": run / "checkpoints" / "model_checkpoint.pt"}[linked]  # fmt: skip
    shutil.move(file, disk)
    file.symlink_to(disk)
    with tiny_digits(part2):
        assert part2.train.cli(["--resume", "--epochs", "2", "--log_dir", str(logs)]) == 0
    assert (run / "summary.json").is_file() and len((run / "metrics.csv").read_text().splitlines()) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "disk"}
    assert os.listdir(logs) == ["version_0"]


def test_pictures_go_where_the_user_sees_the_directory(part2, one_epoch, tmp_path, monkeypatch, capsys):
    shutil.copytree(one_epoch, tmp_path / "logs")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "my pictures").symlink_to("elsewhere")
    monkeypatch.chdir(tmp_path)
    argv = ["--log_dir", "logs", "--pictures", "samples", "--num_samples", "2", "--output_dir", "my pictures/данные"]
    assert part2.generate.main(argv) == 0
    assert Path(capsys.readouterr().out.splitlines()[-1]) == tmp_path / "my pictures" / "данные" / "samples.png"
    assert (tmp_path / "elsewhere" / "данные" / "samples.png").is_file()


@pytest.mark.parametrize("part", ["part1", "part2", "part3"])
@pytest.mark.parametrize("reason", ["Read-only file system", "File name too long"])
def test_a_download_into_a_directory_that_cannot_be_written(request, tmp_path, monkeypatch, capsys, part, reason):
    directory = tmp_path / ("x" * 300) if "name" in reason else request.getfixturevalue("read_only")
    modules = request.getfixturevalue(part)
    if part == "part3":
        monkeypatch.setattr(modules.dataset, "fetch", lambda url: b"plays")
        monkeypatch.setattr(modules.dataset, "_is_tiny_shakespeare", lambda content: True)
        words = ["--txt_file", "tiny_shakespeare"]
    else:
        monkeypatch.setattr(modules.mnist_files, "_fetch", lambda name: b"images")
        words = []
    assert getattr(modules.train, "cli", modules.train.main)([*words, "--data_dir", str(directory)]) == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1 and reason in sentence and "--data_dir" in sentence


@pytest.mark.parametrize(
    "words", ["train --txt_file pydoc --use_pretrained", "train --txt_file", "generate --checkpoint"]
)
def test_weights_and_texts_whose_name_is_too_long(part3, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    command, *flags = words.split()
    assert getattr(part3, command).main([*flags, "x" * 300]) == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1 and "x" * 300 in sentence and not list(tmp_path.iterdir())


def test_any_command_on_a_full_disk(part1, capsys):
    def work(args):
        raise OSError(errno.ENOSPC, "No space left on device", "results/codes.json")

    assert part1.cli.run_command(work, None, "x.py") == 2
    assert capsys.readouterr().err == (
        "x.py: error: cannot write results/codes.json (No space left on device): make room there, or give another "
        "directory\n"
    )

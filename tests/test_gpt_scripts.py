"""The ways to start part 3: as a script, as a module, and from a notebook."""

import os
import subprocess
import sys

import pytest

FLAGS = {"generate": "--top_p", "train": "--txt_file", "export": "--output_dir"}


def run(*words: str, cwd) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("start", [["part3/{}.py"], ["-m", "part3.{}"], ["-P", "part3/{}.py"]], ids=" ".join)
@pytest.mark.parametrize("script", FLAGS)
def test_help_answers_without_importing_torch(repository, script, start):
    done = run("-X", "importtime", *(word.format(script) for word in start), "--help", cwd=repository)
    assert done.returncode == 0, done.stderr
    assert FLAGS[script] in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported and not {"torch", "tokenizers"} & imported


@pytest.mark.parametrize("configured", [False, True])
def test_a_training_in_a_notebook_reports_its_progress(part3, tmp_path, configured):
    """To stdout, unless the application has configured logging."""
    code = (
        "import logging, sys\n"
        f"sys.path.insert(0, {str(part3.folder)!r})\n"
        + ("logging.basicConfig(level='INFO', stream=sys.stdout, format='APP %(message)s')\n" if configured else "")
        + "from argparse import Namespace\n"
        "from train import train\n"
        f"train(Namespace(txt_file='pydoc', model_type='gpt-nano', max_steps=2, block_size=8, train_batch_size=4,\n"
        f"                num_epochs=1, accelerator='cpu', log_dir={str(tmp_path)!r}))\n"
    )
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    begin = "APP " if configured else ""
    lines = [line for line in done.stdout.splitlines() if "step 2/2: train " in line]
    assert len(lines) == 1 and lines[0].startswith(f"{begin}step 2/2: train ")

"""The ways to start part 3: as a script, as a module, and from a notebook."""

import logging
import os
import subprocess
import sys
from argparse import Namespace

import pytest

from runs import not_configured_logging

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
def test_a_training_in_a_notebook_reports_its_progress(part3, tmp_path, capsys, configured):
    """To stdout, unless the application has configured logging."""
    args = Namespace(txt_file="pydoc", model_type="gpt-nano", max_steps=2, block_size=8, train_batch_size=4,
                     num_epochs=1, accelerator="cpu", log_dir=str(tmp_path))  # fmt: skip
    with not_configured_logging(part3):
        if configured:
            logging.basicConfig(level="INFO", stream=sys.stdout, format="APP %(message)s")
        part3.train.train(args)
    begin = "APP " if configured else ""
    lines = [line for line in capsys.readouterr().out.splitlines() if "step 2/2: train " in line]
    assert len(lines) == 1 and lines[0].startswith(f"{begin}step 2/2: train ")

"""Which processes train, whatever SLURM and torchrun have left in the environment; failures of the machine."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from lightning_fabric.utilities.rank_zero import rank_zero_only

from runs import rows_of

PARTS = ["part1", "part2", "part3"]
LAUNCHERS = (
    "SLURM_",
    "TORCHELASTIC_",
    "RANK",
    "LOCAL_",
    "WORLD_SIZE",
    "MASTER_",
    "NODE_RANK",
    "GROUP_RANK",
    "TRAINING_",
)
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}
SRUN = {"SLURM_JOB_ID": "123456", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
        "SLURM_NODEID": "1", "SLURM_NODELIST": "node[7-8]"}  # fmt: skip


@pytest.fixture
def environment(monkeypatch, part1):
    """Sets the variables of launchers; those that the tests themselves were started with are gone."""
    for name in list(os.environ):
        if name.startswith(LAUNCHERS):
            monkeypatch.delenv(name)
    monkeypatch.setattr(rank_zero_only, "rank", 0)

    def set_variables(variables: dict) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    yield set_variables
    part1.cli.state.rank = None


@pytest.mark.parametrize("name", ["cli.py", "processes.py"])
def test_the_parts_have_the_same_file(repository, name):
    assert len({(repository / part / name).read_bytes() for part in PARTS}) == 1


@pytest.mark.parametrize(
    "variables",
    [{}, TORCHRUN, SRUN, {"LOCAL_RANK": "7"}, {"RANK": "x"}, {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"},
     {**TORCHRUN, "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True"}],
)  # fmt: skip
def test_one_device_is_one_process(part1, environment, variables):
    environment(variables)
    rank_zero_only.rank = 3  # what Lightning takes from such variables when it is imported
    found = part1.processes.find_processes(1, 1)
    assert (found.world_size(), found.global_rank(), found.local_rank(), found.node_rank()) == (1, 0, 0, 0)
    assert rank_zero_only.rank == 0 and part1.cli.first_process()
    assert not [name for name in os.environ if name.startswith(("TORCHELASTIC_", "RANK", "LOCAL_RANK", "WORLD_SIZE"))]


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "expected"),
    [
        ({}, 2, 1, (2, 0, 0, 0, True)),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, 2, 1, (2, 0, 0, 0, True)),  # what an outer training has left
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, 2, 1, (2, 0, 0, 0, True)),  # a job's shell: no srun
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, 2, 1, (2, 0, 0, 0, True)),  # srun --pty bash
        (TORCHRUN, 2, 1, (2, 1, 1, 0, False)),
        ({**TORCHRUN, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, 1, 2, (2, 1, 0, 1, False)),
        (SRUN, 2, 2, (4, 3, 1, 1, False)),
        ({"NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}, 3, 2, (6, 3, 0, 1, True)),
        ({"TRAINING_PROCESS": "2 1 1 0 1234 127.0.0.1"}, 2, 1, (2, 1, 1, 0, False)),
    ],
)
def test_who_starts_several_processes(part1, environment, variables, devices, nodes, expected):
    environment(variables)
    found = part1.processes.find_processes(devices, nodes)
    assert (*found.numbers, found.own) == expected
    assert part1.cli.first_process() == (expected[1] == 0)


def test_the_first_machine_of_a_job(part1, environment):
    environment(SRUN)
    found = part1.processes.find_processes(2, 2)
    assert (found.main_address, found.main_port) == ("node7", 15000 + 3456)


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "words"),
    [
        (TORCHRUN, 4, 1, ["--devices 4", "ask for 4 processes", "speaks of 2"]),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "1"}, 2, 1, ["ask for 2 processes", "1 on this machine"]),
        ({**TORCHRUN, "RANK": "5"}, 2, 1, ["RANK 5"]),
        (SRUN, 2, 1, ["ask for 2 processes", "srun has started 4 tasks"]),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, 2, 1, ["ask for 2 processes", "4 tasks"]),
        ({**SRUN, "SLURM_LOCALID": ""}, 2, 2, ["SLURM_LOCALID is missing"]),
        ({}, 1, 2, ["--num_nodes 2", "MASTER_ADDR"]),
    ],
)
def test_a_contradiction_is_one_sentence(part1, environment, variables, devices, nodes, words):
    environment(variables)
    with pytest.raises(part1.cli.InputError) as error:
        part1.processes.find_processes(devices, nodes)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def arguments(name: str, tmp_path, processes: int = 1) -> list[str]:
    """A short training of a part, with the same images or windows in a step of all processes together."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{i} times {i} is {i * i}.\n" for i in range(50)))
    return {
        "part1": ["--dataset", "digits", "--num_filters", "4", "--z_dim", "2", "--epochs", "1", "--batch_size",
                  str(450 // processes)],
        "part2": ["--dataset", "digits", "--z_dim", "2", "--epochs", "1", "--lambda_", "1", "--batch_size",
                  str(400 // processes)],
        "part3": ["--txt_file", str(text), "--model_type", "gpt-nano", "--block_size", "13", "--max_steps", "3",
                  "--generate_batch_size", "1", "--train_batch_size", str(64 // processes)],
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("variables", [{**SRUN, "SLURM_PROCID": "1"}, {"LOCAL_RANK": "1", "RANK": "x"}])
def test_one_of_several_independent_tasks_writes_everything(
    request, environment, tmp_path, monkeypatch, name, variables
):
    """And Lightning's checkpoint of another job in the current folder is left alone."""
    part = request.getfixturevalue(name)
    environment(variables)
    rank_zero_only.rank = 1
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"of another job")
    main = part.train.cli if name == "part2" else part.train.main
    assert main([*arguments(name, tmp_path), "--log_dir", "runs"]) == 0
    (run,) = (path.parent for path in (tmp_path / "runs").rglob("summary.json"))
    assert list(run.glob("events.out.*")) and rows_of(run)
    assert {path.name for path in tmp_path.iterdir()} == {"hpc_ckpt_1.ckpt", "runs", "text.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_two_machines_do_what_one_does_with_batches_of_twice_the_size(repository, environment, tmp_path, name):
    """torchrun with two nodes of one process each, on the loopback device."""
    environment({"OMP_NUM_THREADS": "1"})
    flag = "--accelerator=cpu" if name != "part2" else "--no-cuda"
    train = [str(repository / name / "train.py")]
    subprocess.run([sys.executable, *train, *arguments(name, tmp_path), flag, "--log_dir", str(tmp_path / "1")],
                   check=True)  # fmt: skip
    port = find_free_network_port()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1",
                "--master_addr", "127.0.0.1", "--master_port", str(port)]  # fmt: skip
    argv = [*train, *arguments(name, tmp_path, 2), flag, "--num_nodes", "2", "--log_dir", str(tmp_path / "2")]
    nodes = [subprocess.Popen([*torchrun, "--node_rank", str(rank), *argv]) for rank in range(2)]
    assert [node.wait(timeout=1800) for node in nodes] == [0, 0]
    runs = []
    for log_dir in "12":
        (run,) = (path.parent for path in (tmp_path / log_dir).rglob("summary.json"))
        runs.append(run)
    one, two = (rows_of(run) for run in runs)
    assert json.loads((runs[1] / "summary.json").read_text())["num_devices"] == 2
    writers = {path.name.split(".")[-2] for path in runs[1].glob("events.out.*")}
    assert len(one) == len(two) and len(writers) == 1, "one process writes"
    column = {"part1": "train_bpd", "part2": "train_recon_loss", "part3": "train_loss"}[name]
    # Noise and dropout differ between the processes.
    tolerance = {"part1": 0.02, "part2": 0.02, "part3": 0.002}[name]
    assert float(two[-1][column]) == pytest.approx(float(one[-1][column]), rel=tolerance)


# ------------------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    "failure",
    [
        lambda: torch.empty(10**17),
        lambda: torch.zeros(2**40, 2**40),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")),
        lambda: bytearray(10**17),
    ],
)
def test_too_little_memory_is_said_in_one_sentence(part1, failure):
    with (pytest.raises(part1.cli.InputError, match=r"memory does not suffice.*lower --batch_size"),
          part1.processes.explained_failures("--batch_size")):  # fmt: skip
        failure()


@pytest.mark.parametrize(("failure", "advice"), [
    (RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set "
                  "'torch.use_deterministic_algorithms(True)'."), "--deterministic cannot be had here .*leave it out"),
    (type("TritonMissing", (RuntimeError,), {})("no Triton"), "--compile: .* cannot compile .*leave it out"),
])  # fmt: skip
def test_what_pytorch_cannot_do_here_is_said_in_one_sentence(part1, failure, advice):
    with pytest.raises(part1.cli.InputError, match=advice), part1.processes.explained_failures("--batch_size"):
        raise failure


def test_other_failures_are_not_explained_away(part1):
    with pytest.raises(RuntimeError, match="shapes"), part1.processes.explained_failures("--batch_size"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_compiling_without_a_compiler(request, tmp_path, monkeypatch, capsys, name):
    part = request.getfixturevalue(name)
    monkeypatch.setenv("CXX", str(tmp_path / "no compiler"))
    command = part.train.cli if name == "part2" else part.train.main
    assert command([*arguments(name, tmp_path), "--compile", "--log_dir", str(tmp_path / "logs")]) == 2
    error = capsys.readouterr().err
    assert "--compile needs a C++ compiler" in error and error.count("\n") == 1
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("name", ["part1", "part3"])
def test_a_run_recorded_with_a_gpu_and_resumed_without_one(request, monkeypatch, name):
    part = request.getfixturevalue(name)
    monkeypatch.setattr(part.training_run, "gpu_backend", lambda accelerator: None)
    for flags, advice in (([], "give --accelerator cpu"), (["accelerator"], "leave the flag out")):
        settings = Namespace(accelerator="gpu", devices="1", num_nodes=1, given=frozenset(flags))
        with pytest.raises(part.cli.InputError, match=advice):
            part.training_run.join_processes(settings)


def test_a_process_that_ended_early_is_named(part1, monkeypatch, capsys):
    ended, code = SimpleNamespace(poll=lambda: 1, returncode=1, kill=lambda: None), []
    monkeypatch.setattr(part1.processes, "GRACE", 0)
    monkeypatch.setattr(part1.processes.os, "_exit", code.append)
    monkeypatch.setattr(part1.cli.state, "over", False)
    part1.processes._watch([ended])
    assert code == [2] and "another process of the training ended with exit code 1" in capsys.readouterr().err

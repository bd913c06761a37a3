"""Several processes of a training, and what launchers leave in the environment (promises 6 and 7)."""

import pytest

from short_runs import assert_same_run, results_of, rows_of

CPU = {"part1": ["--accelerator", "cpu"], "part2": ["--no-cuda", "--lambda_", "1"], "part3": ["--accelerator", "cpu"]}
BATCH = {"part1": "--batch_size", "part2": "--batch_size", "part3": "--train_batch_size"}
# Noise and dropout differ between the processes. With λ = 1, part 2 has none.
LOSS = {"part1": ("train_bpd", 0.02), "part2": ("train_recon_loss", 1e-3), "part3": ("train_loss", 0.01)}


def test_two_processes_do_what_one_does_with_batches_of_twice_the_size(runs):
    """As torchrun starts them."""
    for name, size, several in (("one", 60, {}), ("two", 30, {"processes": 2})):
        devices = several.get("processes", 1)
        argv = [*runs.flags, *CPU[runs.part], BATCH[runs.part], size, "--devices", devices, "--strategy", "auto"]
        result = runs.train(name, *argv, **several)
        assert result.code == 0, result.output
    column, tolerance = LOSS[runs.part]
    one, two = (rows_of(runs.run(name)) for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    assert float(two[-1][column]) == pytest.approx(float(one[-1][column]), rel=tolerance)
    assert results_of(runs.run("two"))["num_devices"] == 2
    assert len(list(runs.run("two").parent.iterdir())) == 1, "one process writes"


@pytest.mark.slow
def test_lightning_starts_the_second_process(runs_of):
    runs = runs_of("part3")
    argv = [*runs.flags, *CPU["part3"], "--devices", 2, "--max_steps", 1]
    result = runs.train("started", *argv)
    assert result.code == 0, result.output
    assert results_of(runs.run("started"))["num_devices"] == 2


@pytest.mark.parametrize(
    "env",
    [
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NODEID": "1",
         "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train", "SLURM_NTASKS_PER_NODE": "4"},
        {"RANK": "1", "LOCAL_RANK": "1"},
    ],
    ids=["one of four tasks", "half of a launcher"],
)  # fmt: skip
def test_one_device_ignores_launchers(runs, env):
    assert runs.train(f"alone{len(env)}", *runs.flags, env=env).code == 0
    assert_same_run(runs.run(f"alone{len(env)}"), runs.whole)


def test_processes_of_torchrun_that_are_not_asked_for(runs):
    result = runs.train("contradiction", *runs.flags, processes=2)
    assert result.code == 2 and "give --devices 2" in result.output and "Traceback" not in result.output


def test_other_tasks_than_asked_for_are_one_sentence(runs):
    env = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "3", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
           "SLURM_JOB_NAME": "train", "SLURM_NTASKS_PER_NODE": "3"}  # fmt: skip
    result = runs.train("tasks", *runs.flags, *CPU[runs.part], "--devices", 2, env=env)
    assert result.code == 2 and "--devices" in result.output and "Traceback" not in result.output

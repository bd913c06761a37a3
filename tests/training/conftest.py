"""Fixtures: short runs of the commands in processes of their own."""

from short_runs import commands as commands
from short_runs import runs as runs
from short_runs import runs_of as runs_of

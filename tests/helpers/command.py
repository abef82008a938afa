"""Run the command, and compose the configurations of jobs."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from statprune.config.checks import parse_config
from statprune.config.compose import compose, plain_values
from statprune.config.schema import RunConfig
from tests.helpers.warm import run_warm


def statprune(*overrides: str, cwd: Path, fresh: bool = False, **environment: str) -> subprocess.CompletedProcess:
    """Run the command in a folder and a process of its own.

    The process is a fork that has the libraries already, or a new interpreter where ``fresh`` asks for one: for what
    libraries read when they are imported, and to measure memory.
    """
    if not fresh:
        return run_warm(list(overrides), cwd, 300, [environment])
    command = [sys.executable, "-m", "statprune", *overrides]
    environment = os.environ | environment
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def in_processes(processes: int, *overrides: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run the command in several processes with the environment that torchrun gives them."""
    return run_warm(list(overrides), cwd, 300, processes_environment(processes))


def processes_environment(processes: int) -> list[dict[str, str]]:
    """What torchrun adds to the environment of each process."""
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "OMP_NUM_THREADS": "1"}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def torchrun(processes: int, *overrides: str, cwd: Path, program=("-m", "statprune")) -> subprocess.CompletedProcess:
    """Run a program, the command if none is named, by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += [f"--master-port={_free_port()}", *program, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def composed(*overrides: str) -> RunConfig:
    """The checked configuration of one job, as the command composes it; without a cache, unless one is given."""
    return parse_config(plain_values(compose(["cache=null", *overrides]).config))


def tiny_job(folder: Path, *overrides: str) -> RunConfig:
    """A job on the tiny model, seconds in all."""
    return composed(
        f"model.path={folder}",
        "calibration.samples=4",
        "calibration.seq_len=32",
        "evaluation.max_windows=4",
        "tracking=disabled",
        *overrides,
    )

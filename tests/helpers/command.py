"""Run the command, and compose the configurations of jobs."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from statprune.config.schema import RunConfig, parse_config


def statprune(*overrides: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "statprune", *overrides]
    environment = os.environ | environment
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def torchrun(processes: int, *overrides: str, cwd: Path, program=("-m", "statprune")) -> subprocess.CompletedProcess:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += [f"--master-port={port}", *program, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def composed(*overrides: str) -> RunConfig:
    """The checked configuration of one job, as the command composes it; without a cache, unless one is given."""
    with initialize_config_module("statprune.conf", version_base="1.3"):
        raw: Any = OmegaConf.to_container(compose("config", ["cache=null", *overrides]), resolve=True)
    return parse_config(raw)


def tiny(folder, *overrides):
    """A job on the tiny model, seconds in all."""
    return composed(
        f"model.path={folder}",
        "calibration.samples=4",
        "calibration.seq_len=32",
        "evaluation.max_windows=4",
        "tracking=disabled",
        *overrides,
    )

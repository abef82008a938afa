"""Versions, commit and machine of a run."""

import platform
import sys
from dataclasses import dataclass
from importlib import metadata

import torch

from statprune.system.checkout import git_commit, has_local_changes
from statprune.system.distributed import size

PACKAGES = ("statprune", "torch", "transformers", "tokenizers", "datasets", "lm_eval", "numpy", "hydra-core", "wandb")


@dataclass(frozen=True)
class Environment:
    """What a run was made with.

    Attributes:
        python: version of Python.
        packages: versions by name; None where a package is not installed.
        git_commit: commit of the checkout; None for an installed wheel.
        platform: name and version of the operating system.
        device: product name of the GPU, or the CPU's architecture.
        threads: how many PyTorch uses [threads].
        processes: how many worked together [processes].
        has_local_changes: whether files of the checkout differ from the commit; None without a commit.
    """

    python: str
    packages: dict[str, str | None]
    git_commit: str | None
    platform: str
    device: str | None = None
    threads: int | None = None
    processes: int | None = None
    has_local_changes: bool | None = None

    @property
    def commit(self) -> str:
        """The commit as tables show it: seven digits, and whether files differed; empty for an installed wheel."""
        return f"{(self.git_commit or '')[:7]}{' with local changes' if self.has_local_changes else ''}"


def describe_environment(device: torch.device) -> Environment:
    """This process's environment."""
    is_gpu = device.type == "cuda"
    commit = git_commit()
    return Environment(
        python=sys.version.split()[0],
        packages={name: _version(name) for name in PACKAGES},
        git_commit=commit,
        platform=platform.platform(),
        device=torch.cuda.get_device_name(device) if is_gpu else f"cpu ({platform.machine()})",
        threads=torch.get_num_threads(),
        processes=size(),
        has_local_changes=has_local_changes() if commit is not None else None,
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

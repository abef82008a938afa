"""The run record: what it holds, and in which order it is written so that a finished record is a whole one."""

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from statprune.errors import StatpruneError
from statprune.runs.model_card import model_card
from statprune.system.files import write_json

SCHEMA_VERSION = 1
BLOCKS, MODEL = "blocks.jsonl", "model"
PACKAGES = ("statprune", "torch", "transformers", "tokenizers", "datasets", "lm_eval", "numpy", "hydra-core", "wandb")


def finish_record(folder: Path, record: dict[str, Any], is_saved: bool) -> None:
    """Write the record, and the card of the model if that is saved.

    The record comes last: what it stands beside is whole.
    """
    if is_saved:
        (folder / MODEL / "README.md").write_text(model_card(record), encoding="utf-8")
    write_json(folder / "result.json", record)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The folder's record, or None.

    Raises:
        StatpruneError: it is damaged.
    """
    path = folder / "result.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["config_hash"], record["config"], record["metrics"]["perplexity"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StatpruneError(f"{path} can't be read ({error}); delete it, or give rerun=true to replace it") from error
    return record


def read_layers(folder: Path) -> list[dict[str, Any]]:
    """The reports that a run wrote, one for each layer it pruned."""
    lines = (folder / BLOCKS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, commit and machine."""
    cuda = device.type == "cuda"
    return {
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if cuda else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of this checkout; None for an installed wheel, which another project's checkout may hold."""
    checkout = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(checkout), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        top, commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return commit if Path(top).resolve() == checkout else None
    except (OSError, subprocess.CalledProcessError):
        return None

"""Folders of tiny models whose checkpoint or config.json is changed afterwards."""

import json
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """The folder, with the tensors of its only safetensors file changed in place."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    return folder


def change_config(folder: Path, **keys: object) -> Path:
    """The folder, with keys of its config.json set."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | keys), encoding="utf-8")
    return folder

"""The tensors and small files of the checkpoint that a model was opened from."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from statprune.model.location import locate_model
from statprune.model.stored import load_pickled

if TYPE_CHECKING:
    from statprune.model.loading import ModelSource

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # and their indices, in transformers' order
SIDE_FILES = (  # what save_pretrained of model and tokenizer leaves behind
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "image_processor_config.json",
    "feature_extractor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "NOTICE.txt",
    "USE_POLICY.md",
)


class SourceTensors:
    """A checkpoint's tensors by name, read one at a time; none where there is no such checkpoint (GGUF).

    Args:
        source: what was opened.
        prefixes: a base model's name, which tensors may have or lack in front of theirs.
    """

    def __init__(self, source: "ModelSource", prefix: str):
        self._prefix = f"{prefix}." if prefix else ""
        self._readers: dict[str, Callable[[], Tensor]] = {}
        for path in _weight_files(source):
            self._readers |= tensor_readers(path)

    def get(self, name: str) -> Tensor | None:
        """A tensor, or None where the checkpoint has none of that name."""
        names = [name]
        if self._prefix:
            names.append(name.removeprefix(self._prefix) if name.startswith(self._prefix) else self._prefix + name)
        reader = next((self._readers[other] for other in names if other in self._readers), None)
        return reader() if reader is not None else None


def copy_side_files(source: "ModelSource", folder: Path) -> list[str]:
    """Copy processors' configurations and licences that are not in ``folder`` yet; returns their names."""
    copied = []
    for name in SIDE_FILES:
        path = _file(source, name)
        if path is not None and not (folder / name).exists():
            shutil.copyfile(path, folder / name)
            copied.append(name)
    return copied


def _weight_files(source: "ModelSource") -> list[Path]:
    """The checkpoint's files; none where they are of another kind."""
    for name in WEIGHTS:
        if (path := _file(source, name)) is not None:
            return [path]
        if (index := _file(source, f"{name}.index.json")) is not None:
            weight_map: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            paths = [_file(source, shard) for shard in sorted(set(weight_map.values()))]
            return [path for path in paths if path is not None]
    return []


def _file(source: "ModelSource", name: str) -> Path | None:
    """A file of the checkpoint in its folder, or in the hub's cache; None where it is not there."""
    from transformers.utils import cached_file

    location = locate_model(source.path)
    if location.endswith(".gguf"):
        return None
    if Path(location).exists():
        path = Path(location) / name
        return path if path.is_file() else None
    options: dict[str, Any] = {"revision": source.revision, "local_files_only": True}
    options |= {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    options |= {"_raise_exceptions_for_gated_repo": False}
    try:
        found = cached_file(location, name, **options)
    except (OSError, ValueError):  # not a hub id: a transformers model that was made in Python
        return None
    return Path(found) if found is not None else None


def tensor_readers(path: Path) -> dict[str, Callable[[], Tensor]]:
    """What reads each tensor of a file of weights, by name."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        def read(name: str) -> Tensor:
            with safe_open(path, "pt") as file:
                tensor: Tensor = file.get_tensor(name)
            return tensor

        with safe_open(path, "pt") as file:
            return {name: lambda name=name: read(name) for name in sorted(file.keys())}  # type: ignore[misc]
    return {name: lambda tensor=tensor: tensor for name, tensor in load_pickled(path).items()}  # type: ignore[misc]

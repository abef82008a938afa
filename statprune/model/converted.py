"""GGUF models that have been converted once: folders in a cache, which open like any other in a tenth of the time."""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statprune.model.opened import Opened
from statprune.system.contents import identity_of
from statprune.system.files import owner_tag, remove_dead_folders, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
MANIFEST = "converted.json"
FORMAT = 1  # raised where a later statprune writes such folders otherwise
CONVERTERS = ("gguf", "tokenizers", "transformers")  # what the folder's content depends on besides the file
FOLDER = "models"  # below the cache that runs share
VARIABLE = "STATPRUNE_MODEL_CACHE"  # of the environment
ROOM = 1.1  # of the model's bytes, beside the weights a folder holds a tokenizer


def converted_models(cache: str | None) -> Path | None:
    """Where converted models are kept: the folder that the environment's STATPRUNE_MODEL_CACHE names, or the cache's.

    Args:
        cache: folder of what runs share; None: none.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    return Path(cache) / FOLDER if cache else None


@dataclass(frozen=True)
class Conversion:
    """One .gguf file and the folder that it is converted to.

    Attributes:
        file: what is converted.
        cache: holds the folders of all converted models.
    """

    file: Path
    cache: Path

    @cached_property
    def made_of(self) -> Mapping[str, Any]:
        """What a folder was made of: another file, or other versions, make another folder."""
        versions = {name: version(name) for name in CONVERTERS}
        return {"format": FORMAT, "sha256": identity_of(self.file, in_full=False).sha256, "versions": versions}

    @property
    def folder(self) -> Path:
        """Where the converted model is kept."""
        name = "_".join([self.file.stem, self.made_of["sha256"][:12], *self.made_of["versions"].values(), str(FORMAT)])
        return self.cache / name

    def opened(self) -> Opened | None:
        """What was to be known of the model when it was converted; None where no whole folder is kept.

        A folder that is damaged is removed.
        """
        if not (self.folder / MANIFEST).exists():
            return None
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            if manifest["of"] == self.made_of and manifest["files"] == _identities(self.folder):
                return Opened(**manifest["opened"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        log.warning("%s is damaged: %s is converted again", self.folder, self.file.name)
        self.remove()
        return None

    def keep(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", opened: Opened) -> bool:
        """Store a model that was converted, in the precision it has; whether that could be done.

        Older conversions of a file at the same place are removed.
        """
        unfinished = self.cache / f"unfinished-{owner_tag()}"
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            remove_dead_folders(self.cache)
            if (missing := _missing_room(model, self.cache)) is not None:
                log.warning("%s is not kept converted: %s", self.file.name, missing)
                return False
            shutil.rmtree(unfinished, ignore_errors=True)
            model.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)
            of = {"of": self.made_of, "place": str(self.file.resolve()), "opened": asdict(opened)}
            write_json(unfinished / MANIFEST, of | {"files": _identities(unfinished)})
            unfinished.rename(self.folder)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            if self.opened() is None:  # no other process was faster
                log.warning("%s could not be kept converted in %s (%s)", self.file.name, self.cache, error.strerror)
                return False
        self._remove_stale()
        return True

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_stale(self) -> None:
        """Remove folders that the same file made with other content, or with other versions."""
        for manifest in self.cache.glob(f"*/{MANIFEST}"):
            try:
                place = json.loads(manifest.read_text(encoding="utf-8"))["place"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if place == str(self.file.resolve()) and manifest.parent != self.folder:
                shutil.rmtree(manifest.parent, ignore_errors=True)


def kept_folder(file: Path, models: Path | None) -> Path | None:
    """The whole folder that a .gguf file was converted to; None where there is none.

    Args:
        file: what was converted; it need not be there.
        models: holds the folders of all converted models; None: there are none.
    """
    if models is None or not file.is_file():
        return None
    conversion = Conversion(file, models)
    return conversion.folder if conversion.opened() is not None else None


def _identities(folder: Path) -> dict[str, list[object]]:
    """Size and hash of every file besides the manifest."""
    files = sorted(file for file in folder.iterdir() if file.name != MANIFEST)
    found = {file.name: identity_of(file, in_full=False) for file in files}
    return {name: [own.size, own.sha256] for name, own in found.items()}


def _missing_room(model: "PreTrainedModel", cache: Path) -> str | None:
    """A sentence where the disk has no room for the model."""
    needed = int(ROOM * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()))
    free = shutil.disk_usage(cache).free
    if free >= needed:
        return None
    return f"{cache} has {free / 2**30:.1f} GiB left, and it takes {needed / 2**30:.1f}"


def forget_quantizer(model: "PreTrainedModel") -> None:
    """Drop what GGUF's quantizer left: the weights are dense now, and ``save_pretrained`` would refuse them."""
    holders: tuple[tuple[object, str], ...] = ((model.config, "quantization_config"), (model, "hf_quantizer"))
    for holder, name in holders:
        if hasattr(holder, name):
            delattr(holder, name)
    vars(model)["is_quantized"] = False

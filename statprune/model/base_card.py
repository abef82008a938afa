"""What the card of the model that is pruned says of its licence, and of the model that it was made from itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from statprune.model.location import is_hub_id, locate_model
from statprune.system.hub import reachable

CARD = "README.md"
LICENCE_KEYS = ("license", "license_name", "license_link")  # of the hub's metadata


@dataclass(frozen=True)
class BaseCard:
    """The metadata of a card that goes on with the pruned model.

    Attributes:
        licence: the hub's keys of it; empty: not known.
        base_model: hub id of what the model was made from, as its card says; None: not known.
    """

    licence: Mapping[str, str] = field(default_factory=dict)
    base_model: str | None = None


def base_card(path: str, revision: str | None = None) -> BaseCard:
    """The card of a local folder or of a hub repository, as far as it can be had.

    Args:
        path: as ``model.path`` has it.
        revision: branch, tag or commit on the hub.
    """
    file = _downloaded(path, revision) if is_hub_id(path) else Path(locate_model(path)) / CARD
    if file is None or not file.is_file():
        return BaseCard()
    metadata = metadata_of(file.read_text(encoding="utf-8", errors="replace"))
    base = metadata.get("base_model")
    own = path if is_hub_id(path) else base if isinstance(base, str) else None
    return BaseCard({key: str(metadata[key]) for key in LICENCE_KEYS if isinstance(metadata.get(key), str)}, own)


def metadata_of(text: str) -> Mapping[str, object]:
    """The metadata at the beginning of a card; empty where there is none that can be read."""
    parts = text.split("---\n", 2)
    try:
        values = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def _downloaded(path: str, revision: str | None) -> Path | None:
    """The card of a hub repository in the local cache, downloaded where the hub can be reached."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(path, CARD, revision=revision, local_files_only=not reachable()))
    except Exception:  # the client's error types change between versions; a card is no condition of saving
        return None

"""The files that a model and its tokenizer are read from, and the commit of one that comes from the hub."""

import json
from pathlib import Path

from statprune.model.location import TOKENIZER_FILES, locate_model

CONFIGURATION = (".json", ".jinja", ".py")  # suffixes of configurations, tokenizers, chat templates and own code
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")  # suffixes, those that transformers prefers first
ADAPTER, BASE = "adapter_config.json", "base_model_name_or_path"


def model_files(path: str) -> dict[str, Path]:
    """The local files that a model is read from, by their names in its folder; none for a hub id.

    The files of the base model that an adapter names are among them, by their full paths.

    Args:
        path: as ``model.path`` has it.
    """
    location = Path(locate_model(path)) if path else Path("/nowhere")
    if location.is_file():
        return {location.name: location}
    if not location.is_dir():
        return {}
    own = {file.name: file for file in sorted(location.iterdir()) if file.is_file() and not file.name.startswith(".")}
    weights = next((suffix for suffix in WEIGHTS if any(name.endswith(suffix) for name in own)), None)
    result = {name: file for name, file in own.items() if _is_read(name, weights)}
    base = _base_of(own.get(ADAPTER))
    if base is not None and Path(base).is_dir() and Path(base).resolve() != location.resolve():
        result |= {str(file): file for file in model_files(base).values()}
    return result


def hub_commit(path: str, revision: str | None) -> str | None:
    """The commit that the hub's local cache has for a model; None for local files, or where it is not cached."""
    if not path or Path(locate_model(path)).exists():
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(path, "config.json", revision=revision)
    except HFValidationError:  # it is no hub id: opening it says so
        return None
    return Path(cached).parent.name if isinstance(cached, str) else None


def _is_read(name: str, weights: str | None) -> bool:
    if name.endswith(WEIGHTS):
        return weights is not None and name.endswith(weights)
    return name.endswith(CONFIGURATION) or any(part in name.lower() for part in TOKENIZER_FILES)


def _base_of(adapter: Path | None) -> str | None:
    """What an adapter's configuration names as its base model."""
    try:
        named = json.loads(adapter.read_text(encoding="utf-8")).get(BASE) if adapter is not None else None
    except (OSError, ValueError, AttributeError):  # opening the model says what is wrong with it
        return None
    return named if isinstance(named, str) and named else None

"""Folders that hold something other than a model's own dense weights: adapters, and weights that were quantised."""

import json
from collections.abc import Mapping
from pathlib import Path

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
COMPRESSED = "compressed.json"  # of a model that statprune has compressed
QUANTISERS = ("quantization_config", "compression_config")  # keys of config.json
# files that tools write beside a config.json that does not tell: AutoGPTQ, AutoAWQ, ModelOpt
QUANTISERS_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")


def foreign_problem(path: str, folder: Path) -> str | None:
    """Why a local folder can't be pruned as it is, in one sentence, or None.

    Args:
        path: as ``model.path`` has it.
        folder: where it is.
    """
    if (folder / COMPRESSED).is_file():
        return compressed_problem(path)
    present = next((name for name in ADAPTER_FILES if (folder / name).is_file()), None)
    if present is not None:
        return adapter_problem(path, read_object(folder / present) if present.endswith(".json") else {}, present)
    if problem := quantised_problem(path, read_object(folder / "config.json")):
        return problem
    file = next((name for name in QUANTISERS_FILES if (folder / name).is_file()), None)
    return _quantised(path, file, "") if file is not None else None


def compressed_problem(path: str) -> str:
    """A sentence about a model that is compressed.

    Args:
        path: as ``model.path`` has it.
    """
    return (
        f"model.path={path} holds a compressed model; make it dense with statprune decompress {path} FOLDER, and "
        "give that folder"
    )


def adapter_problem(path: str, adapter: Mapping[str, object], file: str) -> str:
    """A sentence about a model with an adapter.

    Args:
        path: as ``model.path`` has it.
        adapter: what adapter_config.json holds.
        file: that shows the adapter.
    """
    base = adapter.get("base_model_name_or_path")
    own = f" for {base}" if isinstance(base, str) and base else ""
    return (
        f"model.path={path} holds an adapter{own} ({file}), and only whole models can be pruned; merge it first, "
        f"PeftModel.from_pretrained(BASE, {path!r}).merge_and_unload().save_pretrained(FOLDER), "
        "or give the base model in a folder without the adapter's files"
    )


def quantised_problem(path: str, config: Mapping[str, object]) -> str | None:
    """A sentence about a model whose config.json says that its weights are quantised; None for others."""
    parts = [config, *(value for value in config.values() if isinstance(value, Mapping))]
    for part in parts:
        for key in QUANTISERS:
            if value := part.get(key):
                method = value.get("quant_method", "") if isinstance(value, Mapping) else ""
                return _quantised(path, f"{key} in its config.json", f"{method}")
    return None


def _quantised(path: str, where: str, method: str) -> str:
    by = f" by {method}" if method else ""
    return (
        f"model.path={path} holds weights that were quantised{by} ({where}), and only dense ones can be pruned; "
        "give the model that it was made from, or dequantise it and save it in bfloat16"
    )


def read_object(path: Path) -> dict[str, object]:
    """The object in a JSON file; empty where there is none that can be read: whoever opens it will say so."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}

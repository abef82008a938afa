"""What one run leaves for the next: in the same process the model, windows and statistics; on disk dense losses."""

import gc
import hashlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statprune.config.naming import digest
from statprune.config.schema import RunConfig
from statprune.core.statistics import DenseStatistics, StatisticsKind
from statprune.data.windows import Windows
from statprune.model.loading import Block, streamer_of
from statprune.pruning.budget import available
from statprune.system.distributed import size
from statprune.system.files import write_json
from statprune.system.hub import locate_model

log = logging.getLogger(__name__)
ROOM = 0.5  # share of the free memory that may be filled to save work


@dataclass
class _Held:
    """A model; ``dense`` keeps the matrices that pruning changes, and ``is_pruned`` says that it did."""

    key: str
    model: Any
    tokenizer: Any
    is_pruned: bool = False
    dense: dict[str, Tensor] | None = None
    found: dict[str, list[Block]] = field(default_factory=dict)
    windows: dict[str, Windows] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, DenseStatistics] = field(default_factory=dict)


class Workbench:
    """Work that runs share; each answer is what the run would have computed itself, to the last bit.

    Args:
        keeps: hold the model and what belongs to it in memory for a next run with the same model.

    Attributes:
        reused: what the current run did not have to do, in words; ``begin`` empties it.
    """

    def __init__(self, keeps: bool):
        self.keeps = keeps
        self.reused: list[str] = []
        self._held: _Held | None = None

    def begin(self) -> None:
        """A run begins."""
        self.reused = []

    def model(self, key: Any, load: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        """Model and tokenizer, dense: the ones held where the key is the same."""
        name = _key(key)
        held = self._held
        if held is not None and held.key == name and (held.dense is not None or not held.is_pruned):
            if held.is_pruned:
                for parameter_name, dense in (held.dense or {}).items():
                    held.model.get_parameter(parameter_name).data.copy_(dense)
                held.is_pruned = False
            self._reuse("the model")
            return held.model, held.tokenizer
        self._held = held = None
        gc.collect()  # the model before goes before the next one comes
        model, tokenizer = load()
        if self.keeps and streamer_of(model) is None:
            self._held = _Held(name, model, tokenizer)
        return model, tokenizer

    def blocks(self, key: Any, find: Callable[[], list[Block]]) -> list[Block]:
        """The model's blocks."""
        held = self._held
        return find() if held is None else _remembered(held.found, _key(key), find)

    def windows(self, key: Any, read: Callable[[], Windows]) -> Windows:
        """Token windows, which depend on the model's tokenizer."""
        held = self._held
        if held is None:
            return read()
        name = _key(key)
        if name in held.windows:
            self._reuse(f"the {key[0]} tokens")
        return _remembered(held.windows, name, read)

    def about_to_prune(self, blocks: list[Block]) -> None:
        """Keep the dense matrices, where there is room, so that the next run need not load the model."""
        held = self._held
        if held is None:
            return
        held.is_pruned = True
        changed = {id(layer.parameter) for block in blocks for layer in block.layers}
        dense = held.dense or {}
        parameters = {
            name: value for name, value in held.model.named_parameters() if id(value) in changed and name not in dense
        }
        copied = sum(value.numel() * value.element_size() for value in parameters.values())
        if _has_room(copied, torch.device("cpu")):
            held.dense = dense | {name: value.detach().to("cpu", copy=True) for name, value in parameters.items()}
        else:
            self._held = None

    def statistics(self, key: Any, kind: StatisticsKind, blocks: list[Block]) -> DenseStatistics | None:
        """Of the dense model: collected already, or to be collected by this run for the next ones.

        None where they can't be held: Gram matrices may need more memory than there is.
        """
        held = self._held
        if held is None:
            return None
        for collected in sorted(StatisticsKind):
            known = held.statistics.get(_key([key, int(collected)]))
            if collected >= kind and known is not None and len(known.blocks) == len(blocks):
                self._reuse("the calibration pass")
                return known
        collected = max(kind, StatisticsKind.MOMENTS)  # cheap, and most methods need them
        if collected >= StatisticsKind.GRAM:
            inputs = [{(layer.name, layer.in_features) for layer in block.layers} for block in blocks]
            summed = sum(2 * 8 * width**2 for names in inputs for _, width in names)
            if not _has_room(summed, held.model.device):  # they stay where they are summed
                return None
        return held.statistics.setdefault(_key([key, int(collected)]), DenseStatistics(collected))

    def dense_losses(self, key: Any, cache: Path | None, measure: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The dense model's window losses by dataset: measured once, held, and kept as files in ``cache``."""
        values = self._dense(
            "the dense perplexity",
            key,
            None if cache is None else cache / "dense",
            lambda: {source: losses.tolist() for source, losses in measure().items()},
            lambda values: all(math.isfinite(sum(losses)) for losses in values.values()),
        )
        return {source: torch.tensor(losses, dtype=torch.float64) for source, losses in values.items()}

    def dense_accuracies(self, key: Any, cache: Path | None, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The dense model's answers to zero-shot tasks: measured once, held, and kept as files in ``cache``."""
        return self._dense(
            "the dense accuracies",
            key,
            None if cache is None else cache / "zero_shot",
            measure,
            lambda values: bool(values["metrics"]) and all(len(row) == 5 for row in values["documents"]),
        )

    def _dense(
        self,
        what: str,
        key: Any,
        folder: Path | None,
        measure: Callable[[], dict[str, Any]],
        is_whole: Callable[[dict[str, Any]], bool],
    ) -> dict[str, Any]:
        """Plain values by name, from memory, from a file, or measured and kept in both."""
        name = _key(key)
        path = None if folder is None else folder / f"{name}.json"
        known = self._held.measured.get(name) if self._held is not None else None
        if known is None and path is not None:
            known = _read_values(path, is_whole)
        if known is not None:
            self._reuse(what)
            return known
        values = measure()
        if self._held is not None:
            self._held.measured[name] = values
        if path is not None and values and is_whole(values):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, values)
            except OSError as error:
                log.warning("%s could not be kept in %s (%s)", what, path.parent, error.strerror)
        return values

    def after_a_failure(self) -> None:
        """Let go of everything: a run that failed may have left it in any state."""
        self._held = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _reuse(self, what: str) -> None:
        if what not in self.reused:
            log.info("reused %s", what)
            self.reused.append(what)


def _key(value: Any) -> str:
    return digest(value, 24)


def fingerprint(ids: Tensor) -> list[Any]:
    """What tells token windows apart."""
    return [list(ids.shape), hashlib.sha256(ids.numpy().tobytes()).hexdigest()]


def identity(path: str, model: Any = None) -> Any:
    """What tells this model or text from another under the same path: files' sizes and times, or the hub's commit."""
    location = Path(locate_model(path)) if path else Path("/nowhere")
    if location.is_file():
        files = [location]
    else:
        files = sorted(file for file in location.glob("*") if file.is_file()) if location.is_dir() else []
    if files:
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return getattr(getattr(model, "config", None), "_commit_hash", None)


def cache_of(config: RunConfig, model: Any, device: torch.device) -> tuple[Path | None, list[Any]]:
    """Where results of the dense model are kept, nowhere where it can't be told from others; and what tells it."""
    known = identity(config.model.path, model)
    place = Path(config.settings.cache) if config.settings.cache and known and size() == 1 else None
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return place, [Path(config.model.path).name, known, str(next(model.parameters()).dtype), where, software()]


def software() -> list[Any]:
    """What the last bits of a loss depend on besides model and windows."""
    return [*(metadata.version(name) for name in ("statprune", "torch", "transformers")), torch.get_num_threads()]


def _remembered(known: dict[str, Any], key: str, compute: Callable[[], Any]) -> Any:
    if key not in known:
        known[key] = compute()
    return known[key]


def _has_room(count: int, device: torch.device) -> bool:
    """Whether so many bytes more leave enough of the device's memory free."""
    free = available(device)
    return free is None or count < ROOM * free


def _read_values(path: Path, is_whole: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if is_whole(values):
            return values
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        pass
    log.warning("%s is damaged and not used", path)
    return None

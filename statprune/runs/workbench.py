"""What one run leaves in memory for the next of the same process: model, blocks, windows, statistics, dense results."""

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from statprune.config.schema import digest
from statprune.core.statistics import DenseStatistics, StatisticsKind
from statprune.data.windows import Windows
from statprune.evaluation.accuracy import Answers
from statprune.model.loading import LoadedModel
from statprune.model.matrix import Block
from statprune.model.offload import size_of
from statprune.runs.dense_cache import ANSWERS, LOSSES, Codec, DenseCache
from statprune.runs.record import CALIBRATION_PASS
from statprune.system.distributed import gathered
from statprune.system.memory import available
from statprune.walk.activations import OnHost, StoredHidden

log = logging.getLogger(__name__)
T = TypeVar("T")
ROOM = 0.5  # share of the free memory that may be filled to save work


@dataclass
class _Held:
    """A model and what belongs to it.

    Attributes:
        key: what tells the model from others.
        loaded: the model.
        is_pruned: a run has pruned it.
        dense: copies of the matrices that pruning changes; None: there are none.
        blocks: by what they depend on.
        windows: by what they depend on.
        results: of the dense model, by what they depend on.
        statistics: of the dense model, by what they depend on.
        states: what they depend on, and the dense model's last hidden states of the evaluation windows, by dataset;
            one set at a time. None: there are none.
    """

    key: str
    loaded: LoadedModel
    is_pruned: bool = False
    dense: dict[str, Tensor] | None = None
    blocks: dict[str, list[Block]] = field(default_factory=dict)
    windows: dict[str, Windows] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, DenseStatistics] = field(default_factory=dict)
    states: tuple[str, dict[str, list[StoredHidden]]] | None = None

    def restore(self) -> None:
        """Put the dense matrices back."""
        if self.is_pruned:
            for name, dense in (self.dense or {}).items():
                self.loaded.model.get_parameter(name).data.copy_(dense)
            self.is_pruned = False


class Workbench:
    """Work that runs share; each answer is what the run would have computed itself, to the last bit.

    Args:
        holds_model: keep the model and what belongs to it in memory for a next run with the same model.

    Attributes:
        reused: what the current run did not have to do, in words; ``begin`` empties it.
    """

    def __init__(self, holds_model: bool):
        self.reused: list[str] = []
        self._holds_model = holds_model
        self._held: _Held | None = None
        self._has_loaded = False

    def begin(self) -> None:
        """A run begins."""
        self.reused = []

    def model(self, key: object, load: Callable[[], LoadedModel]) -> LoadedModel:
        """The dense model: the one held where the key is the same."""
        name, held = _name(key), self._held
        if held is not None and held.key == name and (held.dense is not None or not held.is_pruned):
            held.restore()
            self._reuse("the model")
            return held.loaded
        self._held = held = None
        if self._has_loaded:
            gc.collect()  # the model before goes before the next one arrives
        self._has_loaded = True
        loaded = load()
        if self._holds_model and loaded.streamer is None:
            self._held = _Held(name, loaded)
        return loaded

    def blocks(self, key: object, find: Callable[[], list[Block]]) -> list[Block]:
        """The model's blocks."""
        return find() if self._held is None else _remembered(self._held.blocks, _name(key), find)

    def windows(self, split: str, key: object, read: Callable[[], Windows]) -> Windows:
        """Token windows, which depend on the model's tokenizer.

        Args:
            split: calibration or evaluation.
            key: what else they depend on.
            read: reads them.
        """
        if self._held is None:
            return read()
        name = _name([split, key])
        if name in self._held.windows:
            self._reuse(f"the {split} tokens")
        return _remembered(self._held.windows, name, read)

    def about_to_prune(self, blocks: Sequence[Block]) -> None:
        """Copy the dense matrices, where there is room, so that the next run need not load the model."""
        held = self._held
        if held is None:
            return
        wanted = _not_copied(held, blocks)
        held.is_pruned = True
        if _has_room(sum(map(size_of, wanted.values())), torch.device("cpu")):
            copies = {name: value.detach().to("cpu", copy=True) for name, value in wanted.items()}
            held.dense = (held.dense or {}) | copies
        else:
            self._held = None

    def bytes_to_copy(self, blocks: Sequence[Block]) -> int:
        """What ``about_to_prune`` will take of the host's memory."""
        wanted = _not_copied(self._held, blocks) if self._held is not None else {}
        needed = sum(map(size_of, wanted.values()))
        return needed if _has_room(needed, torch.device("cpu")) else 0

    def statistics(self, key: object, kind: StatisticsKind, blocks: Sequence[Block]) -> DenseStatistics | None:
        """Of the dense model: collected already, or to be collected by this run for the next ones.

        None where they can't be held: Gram matrices may need more memory than there is.
        """
        held = self._held
        if held is None:
            return None
        for collected_kind in sorted(StatisticsKind):
            collected = held.statistics.get(_name([key, int(collected_kind)]))
            if collected_kind >= kind and collected is not None and len(collected.blocks) == len(blocks):
                self._reuse(CALIBRATION_PASS)
                return collected
        wanted = max(kind, StatisticsKind.MOMENTS)  # cheap, and most methods need them
        if wanted >= StatisticsKind.GRAM:
            inputs = [{(matrix.name, matrix.in_features) for matrix in block.matrices} for block in blocks]
            needed = sum(2 * 8 * width**2 for names in inputs for _, width in names)
            if not _has_room(needed, held.loaded.model.device):  # they stay where they are summed
                return None
        return held.statistics.setdefault(_name([key, int(wanted)]), DenseStatistics(wanted))

    def dense_losses(
        self, cache: DenseCache, key: Sequence[object], measure: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The dense model's window losses by dataset: measured once, held in memory, and stored in the cache."""
        return self._dense_result(LOSSES, cache, key, measure)

    def dense_answers(self, cache: DenseCache, key: Sequence[object], measure: Callable[[], Answers]) -> Answers:
        """The dense model's answers to zero-shot tasks: measured once, held in memory, and stored in the cache."""
        return self._dense_result(ANSWERS, cache, key, measure)

    def dense_states(self, key: object) -> dict[str, list[StoredHidden]] | None:
        """The dense model's last hidden states of evaluation windows, where every process holds them."""
        states = self._held.states if self._held is not None else None
        own = states[1] if states is not None and states[0] == _name(key) else None
        return dict(own) if all(gathered(own is not None)) and own is not None else None

    def keep_dense_states(self, key: object, states: dict[str, list[StoredHidden]], needed: int) -> None:
        """Hold them for the next run in place of those of other windows, where as much room is left.

        Args:
            key: what they depend on besides the model.
            states: by dataset, in memory.
            needed: bytes that they take.
        """
        held = self._held
        if held is None:
            return
        on_host = not states or all(isinstance(own, OnHost) for batches in states.values() for own in batches)
        device = torch.device("cpu") if on_host else held.loaded.model.device
        held.states = (_name(key), dict(states)) if _has_room(needed, device) else None

    def _dense_result(self, codec: Codec[T], cache: DenseCache, key: Sequence[object], measure: Callable[[], T]) -> T:
        name = _name([*cache.model_key, *key])
        value: T | None = self._held.results.get(name) if self._held is not None else None
        if value is None:
            value = cache.read(codec, name)
        if value is not None:
            self._reuse(codec.what)
            return value
        value = measure()
        if self._held is not None:
            self._held.results[name] = value
        cache.write(codec, name, value)
        return value

    def after_a_failure(self) -> None:
        """Let go of everything: a run that failed may have left it in any state."""
        self._held = None
        if self._has_loaded:
            gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _reuse(self, what: str) -> None:
        if what not in self.reused:
            log.info("reused %s", what)
            self.reused.append(what)


def _name(key: object) -> str:
    return digest(key, 24)


def _remembered(results: dict[str, T], name: str, compute: Callable[[], T]) -> T:
    if name not in results:
        results[name] = compute()
    return results[name]


def _not_copied(held: _Held, blocks: Sequence[Block]) -> dict[str, Tensor]:
    """Of a held model, the parameters that pruning these blocks changes and that no copy is held of."""
    changing = {id(matrix.parameter) for block in blocks for matrix in block.matrices}
    copied = held.dense or {}
    parameters = held.loaded.model.named_parameters()
    return {name: value for name, value in parameters if id(value) in changing and name not in copied}


def _has_room(needed: int, device: torch.device) -> bool:
    """Whether so many bytes more leave enough of the device's memory free."""
    free = available(device)
    return free is None or needed < ROOM * free

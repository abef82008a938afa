"""The checkpoint of a run's pruning: written block by block in the background, taken up by the same command."""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from statprune.config.schema import digest
from statprune.config.sections import Checkpoint
from statprune.errors import first_line
from statprune.model.checkpoint import DiskSource
from statprune.model.matrix import Block
from statprune.model.offload import size_of
from statprune.pruning.checkpoint import FinishedBlock
from statprune.runs.checkpoint_files import CheckpointFiles, KeptBlock
from statprune.runs.dense_cache import Codec
from statprune.runs.store import CHECKPOINT
from statprune.system.disk import readable
from statprune.system.distributed import broadcast, rank, size
from statprune.system.options import PlainValues

log = logging.getLogger(__name__)
T = TypeVar("T")
LONG = 600.0  # seconds of pruning that are predicted: above it, auto keeps checkpoints


@dataclass(frozen=True)
class Found:
    """What an earlier attempt left, as the first process tells all.

    Attributes:
        blocks: that it pruned, with files that only the first process reads.
        ratios: of its allocation.
        dense: results of the dense model, by what they are.
    """

    blocks: list[KeptBlock] = field(default_factory=list)
    ratios: dict[str, float] | None = None
    dense: PlainValues = field(default_factory=dict)


class PruningCheckpoint:
    """Keeps pruned blocks, and puts those in place that an earlier attempt pruned (a ``PruneCheckpoint``).

    Only the first process reads and writes files.

    Args:
        folder: of the run.
        mode: whether blocks are kept.
        blocks: of the model.
        parts: what tells the run, its inputs and its software from others, by what it is.
        found: what an earlier attempt left.

    Attributes:
        finished: blocks that an earlier attempt pruned.
        ratios: of an earlier attempt's allocation; None: there are none.
        dense: results of the dense model, by what they are.
    """

    def __init__(self, folder: Path, mode: Checkpoint, blocks: Sequence[Block], parts: Mapping[str, str], found: Found):
        self.finished: list[FinishedBlock] = [block.finished for block in found.blocks]
        self.ratios = found.ratios
        self.dense = dict(found.dense)
        self._files, self._blocks, self._found = CheckpointFiles(folder / CHECKPOINT), blocks, found
        self._parts, self._key = dict(parts), digest(parts, 32)
        is_sure = mode is Checkpoint.true or bool(found.blocks) or _disk_source(blocks[0]) is not None
        self._is_on = mode is not Checkpoint.false and is_sure and rank() == 0
        self._may_begin = mode is Checkpoint.auto and not is_sure and rank() == 0
        self._kept = len(found.blocks)
        self._done: list[FinishedBlock] = list(self.finished)  # those of this attempt, too
        self._is_wanted = mode is not Checkpoint.false and rank() == 0
        self._header: PlainValues = {}
        self._began = time.perf_counter()
        self._thread = ThreadPoolExecutor(1, "statprune-checkpoint")
        self._saving: Future[None] | None = None

    @property
    def kept(self) -> int:
        """How many blocks are on disk, from the first one on."""
        return self._kept

    @property
    def after_interruption(self) -> str:
        """A sentence on what the same command does after an interruption."""
        if not self._kept:
            return "pruning was interrupted, and no block of it was kept: the same command starts at the first one"
        return f"pruning was interrupted: the same command goes on after {self._kept} of {len(self._blocks)} blocks"

    @property
    def is_on(self) -> bool:
        """Whether this process keeps blocks."""
        return self._is_on

    @property
    def needed(self) -> int:
        """Bytes that the blocks take on disk which are not there yet, beside those that are there anyway."""
        parameters = {
            id(parameter): size_of(parameter)
            for block in self._blocks[len(self.finished) :]
            for parameter in _to_be_kept(block).values()
        }
        return sum(parameters.values())

    @property
    def lacks_room(self) -> str | None:
        """A sentence where the blocks don't fit on the disk; None where they do."""
        folder = self._files.folder.parent
        room = shutil.disk_usage(folder).free
        if self.needed <= room:
            return None
        return (
            f"they would take {readable(self.needed)} below {folder}, where {readable(room)} are free; "
            "make room, or set checkpoint=false"
        )

    def begin(self, ratios: Mapping[str, float] | None) -> None:
        """The blocks are about to be pruned, with these ratios."""
        self._began = time.perf_counter()
        self._header = {"parts": self._parts, "ratios": ratios and dict(ratios), "dense": self.dense}
        if self._is_on:
            self._write_header()

    def restore(self, block: Block) -> None:
        """Put the pruned weights of a finished block in place."""
        kept = self._found.blocks[block.index]
        source, streamer = _disk_source(block), block.streamer
        is_adopted = source is not None and streamer is not None and bool(kept.linked) and size() == 1
        if is_adopted and source is not None and streamer is not None:
            streamer.changed_elsewhere(block.index)
            source.adopt(block.index, kept.linked)
        parameters = _to_be_kept(block) if is_adopted else _pruned_parameters(block)
        if not parameters:
            return
        files = kept.weights() if rank() == 0 else {}
        with block.loaded(changed=not is_adopted):
            for name, parameter in parameters.items():
                if rank() == 0:
                    with safe_open(files[name], "pt") as file:
                        parameter.data.copy_(file.get_tensor(name))
                broadcast(parameter.data, 0)

    def take(self, block: Block) -> "_Taken":
        """What ``save`` needs of the block's weights."""
        if not self._is_on and not self._may_begin:
            return _Taken({})
        uses: dict[int, int] = {}
        for own in self._blocks:
            for parameter in _pruned_parameters(own).values():
                uses[id(parameter)] = uses.get(id(parameter), 0) + 1
        # a matrix that blocks share is pruned again
        return _Taken(
            {name: _OnItsWay(value, copied=uses[id(value)] > 1) for name, value in _to_be_kept(block).items()}
        )

    def save(self, block: Block, taken: object, finished: FinishedBlock) -> None:
        """Keep a pruned block; the one before it is waited for, so that one at a time takes memory."""
        self._done.append(finished)
        if self._may_begin:
            self._decide()
        self._wait()
        if not self._is_on or not isinstance(taken, _Taken):
            return
        streamer = block.streamer
        storing = streamer.writing if streamer is not None else None
        self._saving = self._thread.submit(self._write, block, taken, storing, finished)

    def settle(self) -> None:
        """Wait until everything is kept."""
        self._wait()

    def give_room(self, needed: int) -> None:
        """Let go of blocks that were found in a model which was saved before, if there is no room for another."""
        found = [number for number, block in enumerate(self._found.blocks) if block.saved]
        if rank() == 0 and found and shutil.disk_usage(self._files.folder.parent).free < needed:
            self._files.remove_after(found[0])
            self._kept = found[0]

    def find_in(self, saved: Path, shards: Mapping[str, str]) -> None:
        """Find the blocks that were not kept in the model that was saved, from now on: what comes next may fail.

        Nothing where that can't be, as for a mixture whose experts are stored under other names.

        Args:
            saved: folder of the model.
            shards: SHA-256 of its files of tensors.
        """
        if not self._is_wanted or self._kept == len(self._blocks) or len(self._done) < len(self._blocks):
            return
        places = {name: saved / shard for shard in shards for name in _names_in(saved / shard)}
        try:
            self._files.write_header(self._header)
            for block in self._blocks[self._kept :]:
                own = sorted({places[name] for name in _pruned_parameters(block)})
                hashes = {path: shards[path.name] for path in own}
                self._files.link_saved(block.index, self._key, hashes, self._done[block.index])
                self._kept = block.index + 1
        except (OSError, KeyError) as error:
            log.debug("the blocks in %s would be pruned again after a failure (%s)", saved, error)

    def remove(self) -> None:
        """Remove everything: the run is finished."""
        if rank() == 0:
            self._files.remove()

    def announce(self, why: str) -> None:
        """Say where blocks are kept, how much room they take, and why."""
        room = f"they take {readable(self.needed)} at most" if self.needed else "they take no room of their own"
        log.info("pruned blocks are kept below %s until the run ends (%s); %s", self._files.folder, why, room)

    def _decide(self) -> None:
        """After the first block: whether pruning takes so long that blocks are kept."""
        self._may_begin = False
        predicted = (time.perf_counter() - self._began) * len(self._blocks)
        if predicted <= LONG:
            return
        why = f"pruning is predicted to take {predicted / 60:.0f} minutes"
        if self.lacks_room is not None:
            log.warning("%s, but pruned blocks are not kept: %s", why, self.lacks_room)
            return
        self._is_on = True
        self.announce(why)
        self._write_header()

    def _write_header(self) -> None:
        try:
            self._files.write_header(self._header)
        except OSError as error:
            self._give_up(error)

    def _write(self, block: Block, taken: "_Taken", storing: "Future[None] | None", finished: FinishedBlock) -> None:
        if storing is not None:
            wait([storing])  # what is wrong with it is told by who waits for it next
            if storing.exception() is not None:
                return
        source = _disk_source(block)
        shard = source.changed_files(block.index) if source is not None else []
        weights = {name: value.get() for name, value in taken.weights.items()}
        taken.weights.clear()
        self._files.write_block(block.index, self._key, weights, shard, finished)
        self._kept = block.index + 1

    def _wait(self) -> None:
        saving, self._saving = self._saving, None
        if saving is not None:
            try:
                saving.result()
            except (OSError, SafetensorError) as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._is_on = False
        log.warning(
            "pruned blocks can't be kept below %s any longer (%s): pruning goes on, and after a kill the same command "
            "would go on from block %d",
            self._files.folder,
            first_line(error),
            self._kept,
        )


def remembered(checkpoint: PruningCheckpoint | None, codec: Codec[T], key: object) -> T | None:
    """A result of the dense model that an earlier attempt of the run measured; None: there is none.

    Args:
        checkpoint: of the run, in every process.
        codec: of the result.
        key: what the result depends on, besides what the checkpoint does.
    """
    kept = checkpoint.dense.get(codec.folder) if checkpoint is not None else None
    if not isinstance(kept, dict) or kept.get("name") != digest(key, 32):
        return None
    try:
        return codec.decode(kept["values"])
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def keep(checkpoint: PruningCheckpoint | None, codec: Codec[T], key: object, value: T) -> None:
    """Have a result of the dense model kept, once blocks are; arguments as ``remembered`` has them."""
    if checkpoint is not None:
        checkpoint.dense[codec.folder] = {"name": digest(key, 32), "values": codec.encode(value)}


@dataclass(frozen=True)
class _Taken:
    """Weights of a block that was pruned, by full name."""

    weights: "dict[str, _OnItsWay]"


class _OnItsWay:
    """A weight on its way to the host, which nothing waits for."""

    def __init__(self, parameter: Tensor, copied: bool):
        value = parameter.detach()
        self._value = value.clone() if copied and value.device.type == "cpu" else value
        self._arrived: torch.cuda.Event | None = None
        if value.device.type == "cuda":
            self._value = torch.empty_like(value, device="cpu", pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._arrived = torch.cuda.current_stream(value.device).record_event()

    def get(self) -> Tensor:
        """The weight, on the host, with memory of its own."""
        if self._arrived is not None:
            self._arrived.synchronize()
        value = self._value.contiguous()
        is_whole = value.untyped_storage().nbytes() == size_of(value)
        return value if is_whole else value.clone()


def _pruned_parameters(block: Block) -> dict[str, Tensor]:
    """The parameters that hold the block's matrices, by full name."""
    return {f"{block.path}.{matrix.parameter_name}": matrix.parameter for matrix in block.matrices}


def _to_be_kept(block: Block) -> dict[str, Tensor]:
    """Those of them that are not in a shard of the block already."""
    parameters = _pruned_parameters(block)
    if _disk_source(block) is None or block.streamer is None:
        return parameters
    return {name: value for name, value in parameters.items() if not block.streamer.streams(value)}


def _names_in(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return sorted(file.keys())


def _disk_source(block: Block) -> DiskSource | None:
    """What writes the block to a shard once it is pruned; None: nothing does."""
    source = block.streamer.source if block.streamer is not None else None
    return source if isinstance(source, DiskSource) else None

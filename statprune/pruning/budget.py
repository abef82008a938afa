"""What a run will need of the host's and the device's memory, before it starts, and what it took."""

import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from statprune.core.statistics import CHUNK, StatisticsKind
from statprune.model.loading import Block, streamer_of
from statprune.system.distributed import size
from statprune.walk.activations import Place

SOLVING_COPIES = 6  # float32 working copies of the largest matrix: dense, pruned, score, and what selecting takes


@dataclass(frozen=True)
class Need:
    """Bytes beyond what is held before the first window runs, at the same time, by place.

    Attributes:
        blocks: weights that are streamed through the device (none where the model is on it).
        activations: hidden states of all windows between two blocks, when calibrating or evaluating.
        walk: what one batch of windows takes inside a block, or all windows where they pause in it.
        statistics: of the inputs of one block.
        solve: working copies of the largest matrix.
        evaluate: logits of one batch.
    """

    blocks: int
    activations: int
    walk: int
    statistics: int
    solve: int
    evaluate: int

    def total(self, place: Place) -> int:
        """Peak on the device: pruning and evaluating follow each other, solving and walking a batch, too."""
        kept = self.activations if place is Place.device else 0
        evaluate = self.evaluate + (kept if self.blocks else 0)
        return self.blocks + max(kept + self.statistics + max(self.walk, self.solve), evaluate)


def need(
    model: Any,
    blocks: list[Block],
    windows: tuple[int, int] | None,
    batch_size: int,
    evaluation: tuple[int, int],
    evaluated_windows: int,
    requests: tuple[int, int],
    kind: StatisticsKind,
    rows: int,
    sequential: bool,
) -> Need:
    """What pruning and evaluating will take.

    Args:
        model: the model.
        blocks: its blocks.
        windows: how many calibration windows, and their length in tokens; None where nothing is pruned.
        batch_size: calibration windows that run together.
        evaluation: windows that are evaluated together and their length.
        evaluated_windows: of the largest evaluation; all wait between two blocks where blocks are streamed.
        requests: how many of lm-eval's run together and the longest one's length; zeros where there are none.
        kind: of the statistics.
        rows: how many of each input are kept.
        sequential: whether all windows pause inside a block.
    """
    item = next(model.parameters()).element_size()
    vocabulary, hidden = model.get_input_embeddings().weight.shape
    layers = [layer for block in blocks for layer in block.layers]
    widest = max(max(layer.in_features, layer.out_features) for layer in layers)
    inputs = max(layer.in_features for layer in layers)
    largest = max(layer.weights for layer in layers)
    streamer = streamer_of(model)
    count, length = windows or (0, 0)
    count = -(-count // size())
    waiting = 0 if streamer is None else -(-evaluated_windows // size()) * evaluation[1]
    # a gated MLP holds three wide tensors at once, beside the residual stream and its norm
    walk = min(count, batch_size) * length * item * (3 * widest + 3 * hidden)
    if sequential:  # the MLP's product waits, with the residual stream, of every window
        walk += max(count - batch_size, 0) * length * item * (widest + 2 * hidden)
    statistics = 3 * CHUNK[model.device.type] * 8 + 4 * rows * sum(layer.in_features for layer in blocks[0].layers)
    solve = largest * 4 * SOLVING_COPIES
    if kind >= StatisticsKind.GRAM:
        # neighbours of one width share an input, as queries, keys and values do; the output projection has its own
        distinct = {
            (layer.name.rpartition(".")[0], layer.index, layer.in_features)
            for layer in max(blocks, key=lambda block: len(block.layers)).layers
        }
        statistics += 8 * sum(width**2 for _, _, width in distinct) + 8 * hidden**2
        solve += inputs**2 * (4 + 3 * 8)  # factor in both precisions, damped copy, inverse
    windows_together, evaluated = evaluation
    losses = windows_together * evaluated * vocabulary * item + 2 * evaluated * vocabulary * 4
    answers = 2 * requests[0] * requests[1] * vocabulary * item  # logits and their logarithms
    return Need(
        blocks=2 * max(streamer.block_bytes) if streamer is not None else 0,
        activations=max(count * length, waiting) * hidden * item,
        walk=walk if windows else 0,
        statistics=statistics if windows else 0,
        solve=solve if windows else 0,
        evaluate=max(losses, answers),
    )


def place_for(asked: Place, needed: Need, device: torch.device) -> Place:
    """Where calibration activations wait: as asked, or the first of device, host and disk with room for them."""
    if asked is not Place.auto:
        return asked
    if device.type == "cuda" and needed.total(Place.device) <= 0.8 * torch.cuda.mem_get_info(device)[0]:
        return Place.device
    free = available_host()
    beside = needed.total(Place.host) if device.type == "cpu" else 0
    if free is not None and needed.activations + beside > 0.8 * free:
        return Place.disk
    return Place.device if device.type == "cpu" else Place.host


@dataclass(frozen=True)
class Prediction:
    """Peak bytes, predicted."""

    host: int
    device: int


def predict(needed: Need, place: Place, device: torch.device) -> Prediction:
    """Peaks from now on: what is held now, and what will be needed."""
    host = resident()
    if device.type == "cpu":
        kept = Place.device if place is Place.host else place
        return Prediction(host + needed.total(kept), 0)
    host += needed.activations if place is Place.host else 0
    host += needed.blocks  # on their way, or being written
    return Prediction(host, torch.cuda.memory_allocated(device) + needed.total(place))


def resident() -> int:
    """Bytes this process holds in the host's memory now."""
    status = _status()
    return status["VmRSS"] if status else peak_host()


def peak_host() -> int:
    """Most bytes this process held since it started, or since ``restart_peaks``."""
    status = _status()
    unit = 1 if sys.platform == "darwin" else 1024
    return status["VmHWM"] if status else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def restart_peaks(device: torch.device) -> None:
    """Let peaks count from now on, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: peaks count from the process's start
        return


def available(device: torch.device) -> int | None:
    """Bytes that can be taken on the device, the host among them; None where the system does not say."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_host()


def available_host() -> int | None:
    """Bytes that can be taken before the host swaps or a job's limit is met; None where the system says neither."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text(Path("/proc/meminfo")))
    limits = control_group_room(_text(Path("/proc/self/cgroup")), Path("/sys/fs/cgroup"))
    return min([*limits, *([int(found[1]) * 1024] if found else [])], default=None)


def control_group_room(groups: str, root: Path) -> list[int]:
    """Bytes that each memory limit of a container or a Slurm job leaves, of this process's control groups and theirs.

    Args:
        groups: lines as in /proc/self/cgroup.
        root: where the control groups are mounted, of either version.
    """
    room = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        place = top if ".." in path else top / path.lstrip("/")  # outside what a container is shown
        for folder in (folder for folder in (place, *place.parents) if folder.is_relative_to(top)):
            try:
                limit, used = ((folder / name).read_text().strip() for name in names)
                stat = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
            except OSError:  # the topmost group has no limit, and a container's own is at the root
                continue
            if limit != "max":
                # the older version has a number of its own for the groups below, which the use includes
                cached = stat.get("total_inactive_file", stat.get("inactive_file", "0"))
                room.append(int(limit) - int(used) + int(cached))
    return room


def _status() -> dict[str, int]:
    text = _text(Path("/proc/self/status"))
    return {name: int(value) * 1024 for name, value in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", text)}


def _text(path: Path) -> str:
    """What the file says; nothing where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""

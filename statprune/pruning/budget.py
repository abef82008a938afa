"""How much memory a run will need on the host and the device, before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from statprune.core.kernels import available
from statprune.core.row_chunks import CHUNK_ENTRIES
from statprune.core.statistics import CHUNK_VALUES, StatisticsKind
from statprune.model.loading import hidden_size, vocabulary_size
from statprune.model.matrix import Block
from statprune.system.distributed import size
from statprune.system.memory import available_host, resident
from statprune.walk.activations import Placement

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TokenBatch:
    """Sequences of tokens that run together.

    Attributes:
        count: how many sequences.
        length: tokens of each.
    """

    count: int = 0
    length: int = 0


@dataclass(frozen=True)
class Workload:
    """What a run will take through the model.

    Attributes:
        calibration: all calibration windows; None where nothing is pruned.
        batch_size: calibration windows that run together.
        evaluation: evaluation windows that run together.
        evaluated_windows: windows of the largest evaluation; where blocks are streamed, all of them wait between two.
        requests: lm-eval's requests that run together, with the length of the longest.
        kind: of the input statistics.
        sampled_rows: how many rows of each input are sampled.
        working_copies: float32 arrays of a matrix's size that solving holds at once.
        gram_copies: those of its Gram matrix's size.
        is_sequential: all windows pause inside a block.
        kept: evaluation windows whose last hidden states wait while the model is pruned, for fidelity.
        quantized: bytes of quantised matrices beside the model's own, while they are evaluated.
    """

    calibration: TokenBatch | None
    batch_size: int
    evaluation: TokenBatch
    evaluated_windows: int
    requests: TokenBatch
    kind: StatisticsKind
    sampled_rows: int
    working_copies: int
    gram_copies: int
    is_sequential: bool
    kept: TokenBatch = TokenBatch()
    quantized: int = 0


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes needed at the same time beyond what is held before the first window runs.

    Attributes:
        blocks: weights that are streamed through the device (none where the model is on it).
        activations: hidden states of all windows between two blocks, when calibrating or evaluating.
        walk: what one batch of windows takes inside a block, or all windows where they pause in it.
        statistics: of the inputs of one block.
        solve: working copies of the largest matrix.
        evaluate: logits of one batch; of two models where they are compared; quantised matrices.
        kept: hidden states of the dense model that wait from its evaluation to that of the pruned one.
    """

    blocks: int
    activations: int
    walk: int
    statistics: int
    solve: int
    evaluate: int
    kept: int = 0

    def peak(self, placement: Placement, kept: Placement | None = None) -> int:
        """Peak on the device: pruning and evaluating follow each other, as do solving and walking a batch.

        Args:
            placement: of hidden states between two blocks.
            kept: of those of the dense model; None: the same.
        """
        waiting = self.activations if placement is Placement.device else 0
        evaluate = self.evaluate + (waiting if self.blocks else 0)
        beside = self.kept if (placement if kept is None else kept) is Placement.device else 0
        return self.blocks + beside + max(waiting + self.statistics + max(self.walk, self.solve), evaluate)


@dataclass(frozen=True)
class PredictedPeak:
    """Predicted peak bytes.

    Attributes:
        host: of the host.
        device: of the GPU; 0 without one.
    """

    host: int
    device: int


def memory_need(model: "PreTrainedModel", blocks: Sequence[Block], workload: Workload) -> MemoryNeed:
    """What pruning and evaluating will need.

    Args:
        model: the model.
        blocks: its blocks.
        workload: what the run takes through them.
    """
    value_bytes = next(model.parameters()).element_size()
    hidden = hidden_size(model)
    streamer = blocks[0].streamer
    calibration = workload.calibration or TokenBatch()
    windows = -(-calibration.count // size())
    waiting = 0
    if streamer is not None:
        waiting = -(-workload.evaluated_windows // size()) * workload.evaluation.length
    is_pruned = workload.calibration is not None
    return MemoryNeed(
        blocks=2 * max(streamer.block_bytes) if streamer is not None else 0,
        activations=max(windows * calibration.length, waiting) * hidden * value_bytes,
        walk=_walk_bytes(model, blocks, workload, windows) if is_pruned else 0,
        statistics=_statistics_bytes(model, blocks, workload) if is_pruned else 0,
        solve=_solve_bytes(blocks, workload) if is_pruned else 0,
        evaluate=_evaluate_bytes(model, workload),
        kept=workload.kept.count * workload.kept.length * hidden * value_bytes,
    )


def _walk_bytes(model: "PreTrainedModel", blocks: Sequence[Block], workload: Workload, windows: int) -> int:
    calibration = workload.calibration or TokenBatch()
    hidden = hidden_size(model)
    widest = max(max(matrix.in_features, matrix.out_features) for block in blocks for matrix in block.matrices)
    token_bytes = calibration.length * next(model.parameters()).element_size()
    # a gated MLP holds three wide tensors at once, beside the residual stream and its norm
    needed = min(windows, workload.batch_size) * token_bytes * (3 * widest + 3 * hidden)
    if workload.is_sequential:  # the MLP's product of every window waits, with its residual stream
        needed += max(windows - workload.batch_size, 0) * token_bytes * (widest + 2 * hidden)
    return needed


def _statistics_bytes(model: "PreTrainedModel", blocks: Sequence[Block], workload: Workload) -> int:
    inputs = sum(matrix.in_features for matrix in blocks[0].matrices)
    has_kernel = model.device.type == "cuda" and available()  # it reads inputs as they are stored
    chunks = 0 if has_kernel else 3 * CHUNK_VALUES[model.device.type] * 8
    needed = chunks + 4 * workload.sampled_rows * inputs
    if workload.kind >= StatisticsKind.GRAM:
        # neighbours of one width share an input, as queries, keys and values do; the output projection has its own
        distinct = {
            (matrix.name.rpartition(".")[0], matrix.index, matrix.in_features)
            for matrix in max(blocks, key=lambda block: len(block.matrices)).matrices
        }
        needed += 8 * sum(width**2 for _, _, width in distinct) + 8 * hidden_size(model) ** 2
    return needed


def _solve_bytes(blocks: Sequence[Block], workload: Workload) -> int:
    matrices = [matrix for block in blocks for matrix in block.matrices]
    weights = max(matrix.weights for matrix in matrices) * workload.working_copies
    return 4 * (weights + max(matrix.in_features for matrix in matrices) ** 2 * workload.gram_copies)


def _evaluate_bytes(model: "PreTrainedModel", workload: Workload) -> int:
    vocabulary, value_bytes = vocabulary_size(model), next(model.parameters()).element_size()
    evaluation, requests = workload.evaluation, workload.requests
    losses = evaluation.count * evaluation.length * vocabulary * value_bytes + 2 * evaluation.length * vocabulary * 4
    if workload.kept.count:  # the dense model's logits beside them, and some positions of both in float64
        compared = max(CHUNK_ENTRIES[model.device.type], 5 * vocabulary) * 8
        losses += evaluation.count * evaluation.length * vocabulary * value_bytes + compared
    answers = 2 * requests.count * requests.length * vocabulary * value_bytes  # logits and their logarithms
    return max(losses + workload.quantized, answers)


def choose_placement(wanted: Placement, need: MemoryNeed, device: torch.device) -> Placement:
    """Where the windows' hidden states wait: as wanted, or the first of device, host and disk with room for them."""
    if wanted is not Placement.auto:
        return wanted
    beside = need.peak(Placement.host) if device.type == "cpu" else 0
    return _first_with_room(device, need.peak(Placement.device), need.activations + beside)


def choose_kept_placement(wanted: Placement, placement: Placement, need: MemoryNeed, device: torch.device) -> Placement:
    """Where the dense model's hidden states wait: as wanted, or the first of device, host and disk with room for them.

    Args:
        wanted: as the user asked for.
        placement: of the hidden states between two blocks, which come first.
        need: of memory.
        device: that is computed on.
    """
    if wanted is not Placement.auto or not need.kept:
        return placement
    peak = need.peak(placement, Placement.device)
    on_host = need.kept + (need.activations if placement is Placement.host else 0)
    return _first_with_room(device, peak, peak if device.type == "cpu" else on_host)


def _first_with_room(device: torch.device, on_device: int, on_host: int) -> Placement:
    """The first of device, host and disk that has room for so many bytes; a CPU's device is the host."""
    if device.type == "cuda" and on_device <= 0.8 * torch.cuda.mem_get_info(device)[0]:
        return Placement.device
    free = available_host()
    if free is not None and on_host > 0.8 * free:
        return Placement.disk
    return Placement.device if device.type == "cpu" else Placement.host


def predict_peak(
    need: MemoryNeed,
    placement: Placement,
    device: torch.device,
    kept: Placement | None = None,
    copies: int = 0,
    saving: int = 0,
) -> PredictedPeak:
    """Peaks from now on: what is held now, and what will be needed.

    Args:
        need: of memory.
        placement: of hidden states between two blocks.
        device: that is computed on.
        kept: placement of those of the dense model; None: the same.
        copies: bytes of dense weights that will wait on the host for a next run of this process.
        saving: bytes that the host takes to write the model, once its blocks are pruned.
    """
    kept = placement if kept is None else kept
    host = resident() + copies
    if device.type == "cpu":
        where, beside = (Placement.device if own is Placement.host else own for own in (placement, kept))
        saving += need.kept if beside is Placement.device else 0
        return PredictedPeak(host + max(need.peak(where, beside), saving), 0)
    host += need.kept if kept is Placement.host else 0
    waiting = need.activations if placement is Placement.host else 0
    host += max(waiting + need.blocks, saving)  # blocks on their way, or being written
    return PredictedPeak(host, torch.cuda.memory_allocated(device) + need.peak(placement, kept))

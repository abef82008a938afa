"""``statprune.statistics``: what a model's matrices see, for people who study activations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from statprune.api.arguments import check_count, check_expressions, opened_model
from statprune.api.progress import Advance, shown_progress
from statprune.api.tokens import GivenWindows, read_windows
from statprune.core.statistics import InputStatistics, StatisticsKind
from statprune.errors import ChoiceError
from statprune.model.loading import LoadedModel
from statprune.model.matrix import Block
from statprune.pruning.calibration import automatic_batch_size, own_sample
from statprune.system.devices import full_float32
from statprune.system.distributed import own_part, start
from statprune.walk.batches import Batch, advance, capture
from statprune.walk.collect import observe
from statprune.walk.discover import eager_experts, find_blocks

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KINDS = {kind.name.lower(): kind for kind in StatisticsKind}


class ModelStatistics(Mapping[str, InputStatistics]):
    """Input statistics of a model's matrices, by full name such as ``model.layers.0.mlp.down_proj``.

    Matrices that are fed the very same tensor (query, key and value) have the same object.

    Args:
        blocks: by number of the block, the statistics of its matrices by full name.
    """

    def __init__(self, blocks: Mapping[int, Mapping[str, InputStatistics]]):
        self.blocks = blocks
        self._all = {name: own for block in blocks.values() for name, own in block.items()}

    def __getitem__(self, name: str) -> InputStatistics:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def to_frame(self) -> "pd.DataFrame":
        """A row for each matrix.

        Columns: block; matrix (full name); in_features; tokens that reached it; pooled (True: the statistics are those
        of the expert's whole mixture); mean_square (of all inputs); mean_abs_mean (mean over channels of the absolute
        E[x_j]); mean_variance (mean over channels); largest_norm and median_norm (of ‖x_j‖₂ over the channels, for
        outliers).
        """
        import pandas as pd

        rows = [
            {"block": number, **_row(name, own)} for number, block in self.blocks.items() for name, own in block.items()
        ]
        return pd.DataFrame(rows)


@full_float32()
@torch.inference_mode(False)
@torch.no_grad()
def statistics(  # noqa: PLR0913  # the front door: what can be collected, by name
    model: "LoadedModel | PreTrainedModel",
    windows: GivenWindows | None = None,
    *,
    kind: str | StatisticsKind = "moments",
    sampled_rows: int = 0,
    blocks: Sequence[int] | None = None,
    exclude: Sequence[str] = (),
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> ModelStatistics:
    """Collect what the matrices of a model's blocks see; the model stays as it is.

    Args:
        model: what ``load_model`` returns, or a transformers model in evaluation mode.
        windows: as for ``prune``; None: 24 windows of 512 tokens of the bundled text.
        kind: moments (mean, variance and norm of every channel) or gram (also Σ x xᵀ: 8 · in_features² bytes for each
            input, kept until you let go of it).
        sampled_rows: how many input rows of each matrix are kept, the same tokens for all; 0: none.
        blocks: numbers of the blocks to look at; None: all.
        exclude: regular expressions; matrices whose full name one of them is found in are left out.
        tokenizer: for texts; None: the ``LoadedModel``'s.
        batch_size: windows that go through a block together; None: as many as keep the device busy.
        seed: of the bundled windows, and of the sampled rows.
        progress: show a bar on a terminal, and elsewhere a line for each block, on standard error.

    Raises:
        ChoiceError: an option is out of range or of the wrong type, or there is no such block.
        DataError, ModelError: as for ``prune``.

    Examples:
        >>> from statprune import load_model, statistics
        >>> seen = statistics(load_model(), sampled_rows=16, blocks=[0])
        >>> own = seen["model.layers.0.mlp.down_proj"]
        >>> own.variance.shape == own.mean.shape, len(own.rows)
        (True, 16)
        >>> len(seen.to_frame())
        7
    """
    network = opened_model(model, "statistics")
    chosen = _kind(kind)
    check_count(sampled_rows, "sampled_rows", 0)
    check_count(batch_size, "batch_size")
    check_count(seed, "seed", 0)
    ids = read_windows(model, windows, tokenizer, seed).ids
    start(network.device)
    found = find_blocks(model, ids, check_expressions(exclude, "exclude"))
    wanted = _wanted(blocks, len(found))
    own_ids = ids[own_part(len(ids))]
    last, sample = max(wanted), own_sample(ids, sampled_rows, seed)
    with eager_experts(network), shown_progress("observing blocks", last + 1, progress) as tell:
        batches = capture(network, found, own_ids, batch_size or automatic_batch_size(ids.shape[1], network.device))
        return ModelStatistics(_collected(found[: last + 1], wanted, batches, chosen, sample, tell))


def _collected(
    blocks: Sequence[Block],
    wanted: frozenset[int],
    batches: list[Batch],
    kind: StatisticsKind,
    sample: Tensor,
    tell: Advance,
) -> dict[int, dict[str, InputStatistics]]:
    """Statistics of the wanted blocks, by number and full name; the last block is one of them."""
    result = {}
    for block in blocks:
        with block.loaded():
            if block.index in wanted:
                own = observe(block, batches, kind, sample, advance=block is not blocks[-1])
                result[block.index] = _by_full_name(block, own)
            else:
                advance(block, batches)
        tell(block.index + 1)
    return result


def _by_full_name(block: Block, own: Mapping[str, InputStatistics]) -> dict[str, InputStatistics]:
    return {block.full_name(matrix): own[matrix.name] for matrix in block.matrices}


def _kind(kind: object) -> StatisticsKind:
    if isinstance(kind, StatisticsKind):
        return kind
    if not isinstance(kind, str) or kind not in KINDS:
        raise ChoiceError(f"kind={kind!r} is unknown; choose one of {', '.join(KINDS)}")
    return KINDS[kind]


def _wanted(numbers: object, count: int) -> frozenset[int]:
    """Numbers of the blocks to look at."""
    if numbers is None:
        return frozenset(range(count))
    if not isinstance(numbers, Sequence) or isinstance(numbers, str) or not numbers:
        raise ChoiceError(f"blocks={numbers!r} is no list of block numbers; give some of 0 to {count - 1}")
    unknown = [own for own in numbers if not isinstance(own, int) or not 0 <= own < count]
    if unknown:
        raise ChoiceError(f"there is no block {unknown[0]!r}; the model has blocks 0 to {count - 1}")
    return frozenset(numbers)


def _row(name: str, own: InputStatistics) -> dict[str, object]:
    row: dict[str, object] = {"matrix": name, "in_features": len(own.mean), "tokens": own.own_count}
    if own.kind is StatisticsKind.NONE:
        return row
    norm = own.norm
    return row | {
        "pooled": own.is_pooled,
        "mean_square": (norm.square().mean() / max(own.count, 1)).item(),
        "mean_abs_mean": own.mean.abs().mean().item(),
        "mean_variance": own.variance.mean().item(),
        "largest_norm": norm.max().item(),
        "median_norm": norm.median().item(),
    }

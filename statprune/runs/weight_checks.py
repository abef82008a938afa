"""What verify looks for in a saved model's weights: zeros, N:M groups, and tensors that pruning does not touch.

Zeros and groups are those of the matrices that the opened model has, found as the run found them: its files may hold
them under other names, joined or transposed. Tensors that were not pruned are compared as the files hold them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from statprune.core.patterns import NofM
from statprune.core.sparsity_facts import broken_groups
from statprune.errors import StatpruneError
from statprune.model.checkpoint_tensors import CheckpointTensors, open_checkpoint
from statprune.model.converted import converted_models, kept_folder
from statprune.model.coverage import sparsity
from statprune.model.lengths import probe_window
from statprune.model.loading import LoadedModel
from statprune.model.location import locate_model
from statprune.model.matrix import Block, PrunableMatrix
from statprune.model.pruned_parts import pruned_parts
from statprune.model.stored import named_few
from statprune.model.tensor_names import named_as
from statprune.pruning.report import MatrixReport
from statprune.runs.saved_run import Finding, SavedRun
from statprune.runs.wording import counted
from statprune.walk.discover import find_blocks


def weight_findings(run: SavedRun, loaded: LoadedModel) -> Iterator[Finding]:
    """Check the weights of a run's saved model.

    Args:
        run: to check.
        loaded: its saved model.
    """
    pattern = run.config.pattern.value
    has_groups = isinstance(pattern, NofM) and run.record.is_pruned
    exclude = run.config.model.exclude if run.record.is_pruned else []
    try:
        blocks = find_blocks(loaded, probe_window(loaded.model), exclude, run.config.model.prune_routers)
    except StatpruneError as error:
        yield from _not_finite(loaded)
        for check in ("zeros", *(["groups"] if has_groups else []), "untouched"):
            yield Finding(check, None, f"the model's blocks can't be found: {error}")
        return
    pruned = _Pruned(run, loaded, blocks)
    yield _zeros(pruned)
    if isinstance(pattern, NofM) and has_groups:
        yield _groups(pruned, pattern)
    yield _untouched(pruned)


def _not_finite(loaded: LoadedModel) -> Iterator[Finding]:
    """Weights that are NaN or infinite: with them nothing runs, and no block is found."""
    names = [name for name, parameter in loaded.model.named_parameters() if not parameter.isfinite().all()]
    if names:
        what = counted(len(names), "tensor holds", "tensors hold")
        yield Finding("finite", False, f"{what} NaN or infinite values: {named_few(names)}")


@dataclass(frozen=True)
class _Pruned:
    """An opened model beside the run's reports."""

    run: SavedRun
    loaded: LoadedModel
    blocks: list[Block]

    @cached_property
    def matrices(self) -> list[tuple[Block, PrunableMatrix, MatrixReport]]:
        """The pruned matrices, each with its block and its report."""
        reports = self.run.by_place
        pairs = [(block, matrix) for block in self.blocks for matrix in block.matrices]
        return [
            (block, matrix, reports[block.index, matrix.name])
            for block, matrix in pairs
            if (block.index, matrix.name) in reports
        ]

    @property
    def problem(self) -> str | None:
        """Why nobody can tell which matrices were pruned; None: all are known."""
        if self.run.reports_problem is not None:
            return self.run.reports_problem
        unknown = len(self.run.reports) - len(self.matrices)
        if not unknown:
            return None
        return f"{unknown} of {counted(len(self.run.reports), 'pruned matrix', 'pruned matrices')} have other names now"

    def parts(self) -> dict[str, bool | Tensor]:
        """Of the blocks' tensors in files: whether their values were pruned, or which of them."""
        parts: dict[str, bool | Tensor] = {}
        for block in self.blocks:
            own = [matrix for other, matrix, _ in self.matrices if other is block]
            parts |= pruned_parts(self.loaded.model, block, own)
        return parts


def _zeros(pruned: _Pruned) -> Finding:
    """Zeros of every pruned matrix, and of all matrices together, against the record."""
    wrong = []
    for block, matrix, report in pruned.matrices:
        wanted, zeros = round(report.sparsity * report.weights), int((matrix.stored == 0).sum())
        wrong += [f"{matrix.name} of block {block.index} has {zeros:,} zeros and not {wanted:,}"] * (zeros != wanted)
    if wrong:
        where = counted(len(wrong), "matrix", "matrices")
        return Finding("zeros", False, f"in {where} the zeros are not the record's: {named_few(wrong, 2)}")
    achieved, now = pruned.run.record.sparsity.achieved, sparsity(pruned.blocks)
    if abs(now - achieved) > 1e-9:
        return Finding("zeros", False, f"the sparsity of all block matrices is {now:.7f} and not {achieved:.7f}")
    if pruned.problem is not None:
        return Finding(
            "zeros", None, f"{pruned.problem}; over all block matrices the sparsity is {achieved:.5f}, as recorded"
        )
    count = len(pruned.matrices)
    each = f"in each of {counted(count, 'pruned matrix', 'pruned matrices')}, " if count else ""
    return Finding("zeros", True, f"{each}sparsity {achieved:.5f} over all block matrices, as recorded")


def _groups(pruned: _Pruned, pattern: NofM) -> Finding:
    """Every group of every pruned matrix, along its inputs."""
    wrong, groups = [], 0
    for block, matrix, _ in pruned.matrices:
        broken = broken_groups(matrix.oriented, pattern.keep, pattern.of)
        groups += matrix.weights // pattern.of
        wrong += [f"{broken:,} in {block.full_name(matrix)}"] if broken else []
    shown = f"{pattern.keep}:{pattern.of}"
    if wrong:
        return Finding("groups", False, f"groups that are not {shown}: {named_few(wrong)}")
    if pruned.problem is not None:
        return Finding("groups", None, pruned.problem)
    return Finding("groups", True, f"{groups:,} groups are {shown}")


def _untouched(pruned: _Pruned) -> Finding:
    """Whether what pruning does not touch is the source's, cast to the dtype that the run asked for."""
    run = pruned.run
    if pruned.problem is not None:
        return Finding("untouched", None, f"which tensors were not pruned is unknown: {pruned.problem}")
    try:
        source = _comparable(run)
    except StatpruneError as error:
        return Finding("untouched", None, f"nothing to compare with: {error}")
    compared = _compared(open_checkpoint(str(run.model)), source, pruned.parts(), run.config.model.source.dtype)
    changed = [name for name, is_same in compared.items() if is_same is False]
    odd = [name for name, is_same in compared.items() if is_same is None]
    if changed:
        what = counted(len(changed), "tensor that was not pruned differs", "tensors that were not pruned differ")
        return Finding("untouched", False, f"{what}: {named_few(changed)}")
    if odd:
        what = counted(len(odd), "tensor", "tensors")
        return Finding("untouched", None, f"{what} could not be compared with {source.path}: {named_few(odd)}")
    what = counted(len(compared), "tensor that was not pruned has", "tensors that were not pruned have")
    return Finding("untouched", True, f"{what} the values of {source.path}")


def _comparable(run: SavedRun) -> CheckpointTensors:
    """The dense checkpoint with the tensors as they were opened: of a .gguf file the folder that it was converted to.

    Raises:
        StatpruneError: there is none.
    """
    if not run.source.endswith(".gguf"):
        return open_checkpoint(run.source, run.config.model.source.revision)
    folder = kept_folder(Path(locate_model(run.source)), converted_models(run.record.paths.get("cache")))
    if folder is not None:
        return open_checkpoint(str(folder))
    raise StatpruneError(f"{run.source} is not kept converted; a run with the same cache converts it")


def _compared(
    own: CheckpointTensors, source: CheckpointTensors, parts: Mapping[str, bool | Tensor], dtype: str
) -> dict[str, bool | None]:
    """By tensor that was not pruned as a whole: whether the rest of it is the source's; None: nobody can tell."""
    compared, originals = dict[str, bool | None](), named_as(own.readers, source).readers
    for name, read in own.readers.items():
        part = parts.get(name, False)
        if part is True:
            continue
        tensor, original = read(), originals[name]() if name in originals else None
        if original is None or original.shape != tensor.shape:
            compared[name] = None
        else:
            compared[name] = _is_equal(tensor, original if dtype == "auto" else original.to(tensor.dtype), part)
    return compared


def _is_equal(tensor: Tensor, original: Tensor, pruned: bool | Tensor) -> bool:
    """Whether two tensors have the same values besides those that were pruned; NaN is equal to itself."""
    if tensor.dtype == original.dtype and torch.equal(_bytes(tensor), _bytes(original)):
        return True
    own, other = tensor.to(torch.float64), original.to(torch.float64)
    return bool(((own == other) | (own.isnan() & other.isnan()) | pruned).all())


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)

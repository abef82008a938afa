"""Which matrices of a block are pruned, and which are skipped and why: experts, routers, gates, exclusions.

The decision rests on the products that ``products`` saw, on shapes and on where parameters stand; on no family's name.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from statprune.errors import ModelError
from statprune.model.matrix import Block, PrunableMatrix, SkippedMatrix
from statprune.walk.norms import is_norm_output
from statprune.walk.products import Use, is_matrix


@dataclass(frozen=True)
class BlockMatrices:
    """A block's matrices.

    Attributes:
        prunable: to be pruned.
        skipped: not to be pruned.
    """

    prunable: list[PrunableMatrix]
    skipped: list[SkippedMatrix]


def classify(
    module: nn.Module, prefix: str, uses: Mapping[str, Use], norm_outputs: list[Tensor], prune_routers: bool
) -> BlockMatrices:
    """Divide a block's matrices into those to prune and those to skip.

    Args:
        module: the block.
        prefix: its path in the model.
        uses: a product seen of each parameter of the model, by its full name.
        norm_outputs: what the block's norms returned.
        prune_routers: prune routers, too.
    """
    lists = [path for path, child in module.named_modules() if isinstance(child, nn.ModuleList) and len(child) > 1]
    parameters = {name: parameter for name, parameter in module.named_parameters() if is_matrix(parameter.shape)}
    stacks = {name: _stack_of(name, lists) for name in parameters}
    own_uses = {name: uses[f"{prefix}.{name}"] for name in parameters if f"{prefix}.{name}" in uses}
    stack_uses: dict[tuple[str, torch.Size], Use] = {}  # the few tokens run need not reach every expert of a stack
    for name, use in own_uses.items():
        if (stack := stacks[name]) is not None:
            stack_uses.setdefault((stack, parameters[name].shape), use)
    matrices, skipped = [], []
    for name, parameter in parameters.items():
        stack = stacks[name]
        seen_use = own_uses.get(name) or (stack_uses.get((stack, parameter.shape)) if stack else None)
        base = name.removesuffix(".weight")
        if seen_use is not None:
            follows_norm = is_norm_output(seen_use.inputs, norm_outputs)
            matrices += _matrices_of(name, parameter, seen_use, stack, follows_norm)
        elif not (_is_vector(parameter) or _is_stack_of_vectors(name, parameter, parameters)):
            skipped.append(SkippedMatrix(stack or base, "no product seen", parameter))
    return _skip_routers_and_gates(matrices, skipped, prune_routers)


def _matrices_of(name: str, parameter: Tensor, use: Use, stack: str | None, follows_norm: bool) -> list[PrunableMatrix]:
    """The one matrix that a parameter is, or the several that it stacks."""
    base = name.removesuffix(".weight")
    return [
        PrunableMatrix(
            name=f"{base}[{index}]" if use.count > 1 else base,
            parameter_name=name,
            parameter=parameter,
            index=index,
            count=use.count,
            shape=use.shape,
            transposed=use.transposed,
            stack=base if use.count > 1 else stack,
            follows_norm=follows_norm,
        )
        for index in range(use.count)
    ]


def _stack_of(name: str, lists: list[str]) -> str | None:
    """``experts.3.w1.weight`` → ``experts.*.w1`` where ``experts`` is a module list, else None."""
    for path in lists:
        if name.startswith(f"{path}."):
            return f"{path}.*.{name.removeprefix(f'{path}.').partition('.')[2].removesuffix('.weight')}"
    return None


def _is_vector(parameter: Tensor) -> bool:
    """Stored as (1, features), as the biases of some routers are."""
    return parameter.ndim == 2 and min(parameter.shape) == 1


def _is_stack_of_vectors(name: str, parameter: Tensor, parameters: Mapping[str, Tensor]) -> bool:
    """A bias for each expert, (experts, features), beside the experts' own matrices."""
    holder = name.rpartition(".")[0]
    return parameter.ndim == 2 and any(
        other.ndim == 3 and len(other) == len(parameter) and key.rpartition(".")[0] == holder
        for key, other in parameters.items()
    )


def _skip_routers_and_gates(
    matrices: list[PrunableMatrix], skipped: list[SkippedMatrix], prune_routers: bool
) -> BlockMatrices:
    """Skip gates (one output: nothing competes) and, unless asked for, routers: they choose, they do not transform."""
    routers = set() if prune_routers else _routers(matrices)
    prunable, skipped = [], list(skipped)
    for matrix in matrices:
        if matrix.out_features == 1:
            skipped.append(SkippedMatrix(matrix.kind, "gate", matrix))
        elif matrix.name in routers:
            skipped.append(SkippedMatrix(matrix.kind, "router", matrix))
        else:
            prunable.append(matrix)
    return BlockMatrices(prunable, skipped)


def _routers(matrices: list[PrunableMatrix]) -> set[str]:
    """Matrices beside a mixture with an output for each expert, or a few more (LongCat's experts that do nothing)."""
    experts: dict[str, int] = {}
    for matrix in matrices:
        if matrix.stack is not None:
            experts[matrix.stack] = experts.get(matrix.stack, 0) + 1
    single = [matrix for matrix in matrices if matrix.stack is None]
    routers = set()
    for stack, count in experts.items():
        nearness = {matrix.name: _common_components(stack, matrix.name) for matrix in single}
        exact = [matrix.name for matrix in single if matrix.out_features == count]
        wider = [
            matrix.name for matrix in single if count < matrix.out_features <= 2 * count and nearness[matrix.name] > 0
        ]
        candidates = exact or wider
        routers |= {name for name in candidates if nearness[name] == max(nearness[other] for other in candidates)}
    return routers


def _common_components(first: str, second: str) -> int:
    """How many components of their names two matrices share from the start."""
    pairs = zip(first.split("."), second.split("."), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def skip_excluded(blocks: list[Block], expressions: Sequence[str]) -> list[Block]:
    """The blocks with every matrix skipped whose full name one of the regular expressions is found in.

    Raises:
        ModelError: an expression is found in no name, or nothing is left to prune.
    """
    used = set()

    def is_excluded(name: str) -> bool:
        matching = [expression for expression in expressions if re.search(expression, name)]
        used.update(matching)
        return bool(matching)

    result = []
    for block in blocks:
        matrices = []
        skipped = [
            replace(item, reason="excluded") if is_excluded(f"{block.path}.{item.kind}") else item
            for item in block.skipped
        ]
        for matrix in block.matrices:
            if is_excluded(block.full_name(matrix)):
                skipped.append(SkippedMatrix(matrix.kind, "excluded", matrix))
            else:
                matrices.append(matrix)
        result.append(replace(block, matrices=matrices, skipped=skipped))
    unused = [expression for expression in expressions if expression not in used]
    if unused:
        example = next((block.full_name(matrix) for block in blocks for matrix in block.matrices), "none")
        raise ModelError(f"model.exclude: {', '.join(unused)} is found in no layer's name; names are like {example}")
    if expressions and not any(block.matrices for block in result):
        raise ModelError("model.exclude leaves nothing to prune; exclude less, or take method=dense")
    return result

"""Which matrices of a block are pruned, and which are left and why: experts, routers, gates, exclusions.

Known from the products that ``products.py`` saw, from shapes and from where parameters stand; from no family's name.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from statprune.errors import ModelError
from statprune.model.loading import Block, Layer, Left
from statprune.walk.products import Use, is_matrix


def matrices(
    module: nn.Module, prefix: str, uses: Mapping[str, Use], prune_routers: bool
) -> tuple[list[Layer], list[Left]]:
    """The block's matrices: those to prune, and those to leave.

    Args:
        module: the block.
        prefix: its path in the model.
        uses: a product seen of each parameter of the model, by its full name.
        prune_routers: prune routers, too.
    """
    lists = [path for path, child in module.named_modules() if isinstance(child, nn.ModuleList) and len(child) > 1]
    parameters = {name: parameter for name, parameter in module.named_parameters() if is_matrix(parameter)}
    stacks = {name: _stack_of(name, lists) for name in parameters}
    seen = {name: uses[f"{prefix}.{name}"] for name in parameters if f"{prefix}.{name}" in uses}
    siblings: dict[tuple[str, torch.Size], Use] = {}  # the few tokens run need not reach every expert of a stack
    for name, use in seen.items():
        if (stack := stacks[name]) is not None:
            siblings.setdefault((stack, parameters[name].shape), use)
    layers, left = [], []
    for name, parameter in parameters.items():
        stack = stacks[name]
        known = seen.get(name) or (siblings.get((stack, parameter.shape)) if stack else None)
        base = name.removesuffix(".weight")
        if known is None:
            if not (_is_vector(parameter) or _is_stack_of_vectors(name, parameter, parameters)):
                left.append(Left(stack or base, "no product seen", parameter))
            continue
        for index in range(known.count):
            layers.append(
                Layer(
                    f"{base}[{index}]" if known.count > 1 else base,
                    name,
                    parameter,
                    index,
                    known.count,
                    known.shape,
                    known.transposed,
                    base if known.count > 1 else stack,
                )
            )
    return _set_aside(layers, left, prune_routers)


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
    """A bias of each expert, (experts, features), beside the experts' own matrices."""
    holder = name.rpartition(".")[0]
    return parameter.ndim == 2 and any(
        other.ndim == 3 and len(other) == len(parameter) and key.rpartition(".")[0] == holder
        for key, other in parameters.items()
    )


def _set_aside(layers: list[Layer], left: list[Left], prune_routers: bool) -> tuple[list[Layer], list[Left]]:
    """Leave gates (one output: nothing competes) and, unless asked for, routers: they choose, they do not transform."""
    routers = set() if prune_routers else _routers(layers)
    kept = []
    for layer in layers:
        reason = "gate" if layer.out_features == 1 else "router" if layer.name in routers else None
        if reason is None:
            kept.append(layer)
        else:
            left.append(Left(layer.kind, reason, layer))
    return kept, left


def _routers(layers: list[Layer]) -> set[str]:
    """Matrices beside a mixture with an output for each expert, or a few more (LongCat's experts that do nothing)."""
    experts: dict[str, int] = {}
    for layer in layers:
        if layer.stack is not None:
            experts[layer.stack] = experts.get(layer.stack, 0) + 1
    routers = set()
    for stack, count in experts.items():
        near = {layer.name: _common(stack, layer.name) for layer in layers if layer.stack is None}
        exact = [layer.name for layer in layers if layer.stack is None and layer.out_features == count]
        more = [
            layer.name
            for layer in layers
            if layer.stack is None and count < layer.out_features <= 2 * count and near[layer.name] > 0
        ]
        fits = exact or more
        routers |= {name for name in fits if near[name] == max(near[other] for other in fits)}
    return routers


def _common(first: str, second: str) -> int:
    """How many parts of their names two matrices share from the start."""
    pairs = zip(first.split("."), second.split("."), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def leave_excluded(blocks: list[Block], patterns: Sequence[str]) -> list[Block]:
    """The blocks with every matrix left dense whose full name one of the regular expressions is found in.

    Raises:
        ModelError: an expression is found in no name, or nothing is left to prune.
    """
    used = set()

    def excluded(name: str) -> bool:
        matching = [pattern for pattern in patterns if re.search(pattern, name)]
        used.update(matching)
        return bool(matching)

    result = []
    for block in blocks:
        layers = []
        left = [
            replace(item, reason="excluded") if excluded(f"{block.path}.{item.kind}") else item for item in block.left
        ]
        for layer in block.layers:
            if excluded(block.full(layer)):
                left.append(Left(layer.kind, "excluded", layer))
            else:
                layers.append(layer)
        result.append(replace(block, layers=layers, left=left))
    unused = [pattern for pattern in patterns if pattern not in used]
    if unused:
        example = next((block.full(layer) for block in blocks for layer in block.layers), "none")
        raise ModelError(f"model.exclude: {', '.join(unused)} is found in no layer's name; names are like {example}")
    if patterns and not any(block.layers for block in result):
        raise ModelError("model.exclude leaves nothing to prune; exclude less, or take method=dense")
    return result

"""See which matrices read what a norm returns: no class or family names."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def norm_candidates(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Path and module of those that may be norms: they have no matrix, in themselves or in a module of theirs."""
    for path, child in module.named_modules():
        if all(parameter.ndim <= 1 for parameter in child.parameters()) and not any(child.children()):
            yield path, child


class NormOutputs:
    """While its hooks are there, notes what the norms in some modules returned last.

    A norm is a module that multiplies each channel of what it returns by a parameter, and holds no matrix; or one
    without parameters whose rows all have a mean square of 1. An activation function with a parameter of its own has
    only a few of them, not one for each channel.

    Args:
        modules: by their paths in the model.
    """

    def __init__(self, modules: Mapping[str, nn.Module]):
        self._outputs: dict[str, dict[str, Tensor]] = {path: {} for path in modules}
        self.hooks: list[RemovableHandle] = [
            child.register_forward_hook(_Note(self._outputs[path], name))
            for path, module in modules.items()
            for name, child in norm_candidates(module)
        ]

    def of(self, path: str) -> list[Tensor]:
        """What the norms of one module returned, each (..., channels)."""
        return list(self._outputs[path].values())


class _Note:
    """A forward hook that keeps a norm's output."""

    def __init__(self, outputs: dict[str, Tensor], name: str):
        self._outputs, self._name = outputs, name

    def __call__(self, module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and _is_norm(module, output):
            self._outputs[self._name] = output.detach()


def _is_norm(module: nn.Module, output: Tensor) -> bool:
    if not output.ndim or not output.numel():
        return False
    sizes = [parameter.numel() for parameter in module.parameters()]
    if sizes:
        return output.shape[-1] in sizes
    squares = output.float().square().mean(-1)
    return bool(torch.allclose(squares, torch.ones_like(squares), rtol=0, atol=0.02))


def is_norm_output(inputs: Tensor, outputs: list[Tensor]) -> bool:
    """Whether the first row of a matrix's inputs is, value by value, a row that a norm returned.

    Rows are compared and not tensors, so that the tokens which a router picks for an expert are found, too.

    Args:
        inputs: (..., in_features).
        outputs: of norms, each (..., channels).
    """
    if not inputs.numel():
        return False
    first = inputs.reshape(-1, inputs.shape[-1])[0]
    return any(
        bool((output.reshape(-1, output.shape[-1]).to(first.dtype) == first).all(1).any())
        for output in outputs
        if output.shape[-1] == len(first)
    )

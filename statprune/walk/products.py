"""See which parameters a model multiplies its inputs by: no class or family names.

A model, or a block of it, is run under a ``TorchFunctionMode`` that sees every matrix product. A parameter (or an equal
slice of one, as an expert of a fused mixture is) that takes part in a product is a matrix; how it takes part tells
which of its dimensions are the inputs.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from statprune.model.offload import is_here

CASTS = {Tensor.to, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.type, Tensor.type_as}
MATMULS = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm}


@dataclass(frozen=True)
class Use:
    """One product of inputs with a parameter, or with one of the equal matrices that a parameter stacks.

    Attributes:
        name: the parameter.
        index: which matrix of the stack; 0 where the parameter is one matrix.
        count: matrices in the stack.
        shape: of one matrix as it is stored.
        transposed: stored as (in_features, out_features).
        inputs: (..., in_features).
    """

    name: str
    index: int
    count: int
    shape: tuple[int, int]
    transposed: bool
    inputs: Tensor


def is_matrix(shape: Sequence[int]) -> bool:
    """Whether a parameter of this shape has two dimensions, or more of which at least two are larger than 1."""
    return len(shape) == 2 or sum(size > 1 for size in shape) >= 2


class Products(TorchFunctionMode):
    """While active, calls ``see`` for every product of an input with a parameter.

    Args:
        module: whose parameters, by their names in it; vectors are ignored.
        see: called with each use before the product is computed.
    """

    def __init__(self, module: nn.Module, see: Callable[[Use], object]):
        super().__init__()
        self._module, self._see = module, see
        # copies in another dtype, held so that their memory stays theirs
        self._casts: dict[int, tuple[Tensor, Tensor]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look up again where the parameters are in memory."""
        named = [
            (parameter.data_ptr(), name, parameter)
            for name, parameter in self._module.named_parameters()
            if is_matrix(parameter.shape) and is_here(parameter)
        ]
        self._named = sorted(named, key=lambda item: item[0])
        self._starts = [start for start, _, _ in self._named]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Report the call if it is a product, and carry it out."""
        kwargs = kwargs or {}
        for weight, inputs in _operands(func, args, kwargs):
            self._report(self._uncast(weight), inputs)
        result = func(*args, **kwargs)
        if func in CASTS and result is not args[0] and self._find(args[0]) is not None:
            self._casts[result.data_ptr()] = (result, args[0])
        return result

    def _uncast(self, weight: Tensor) -> Tensor:
        """The parameter's own memory, where ``weight`` is a copy of it in another dtype (routers often are)."""
        cast, source = self._casts.get(weight.data_ptr(), (None, None))
        if cast is None or source is None or weight.ndim != cast.ndim:
            return weight
        for copy, original in ((cast, source), (cast.mT, source.mT)):
            if weight.shape == copy.shape and weight.stride() == copy.stride():
                return original
        return weight

    def _report(self, weight: Tensor, inputs: Tensor) -> None:
        """Report ``weight``, (..., out_features, in_features) as multiplied, if it is a parameter's memory."""
        owner = self._find(weight)
        if owner is None:
            return
        if weight.ndim == 3 and (len(weight) == 1 or weight.stride(0) == 0):  # one matrix for every window
            self._report(weight[0], inputs)
        elif weight.ndim == 3:
            for index in range(len(weight)):  # all experts at once: rows of zeros are tokens of other experts
                rows = inputs[index] if inputs.ndim == 3 and len(inputs) == len(weight) else inputs
                rows = rows.reshape(-1, rows.shape[-1])
                self._report(weight[index], rows[rows.any(dim=1)])
        elif (use := _use_of(*owner, weight, inputs)) is not None:
            self._see(use)

    def _find(self, weight: Tensor) -> tuple[str, Tensor] | None:
        """Name and tensor of the parameter whose memory ``weight`` is in."""
        position = bisect_right(self._starts, weight.data_ptr()) - 1
        if position < 0:
            return None
        start, name, parameter = self._named[position]
        is_inside = weight.data_ptr() < start + parameter.numel() * parameter.element_size()
        is_same_kind = weight.dtype == parameter.dtype and weight.device == parameter.device
        return (name, parameter) if is_inside and is_same_kind else None


def _operands(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[Tensor, Tensor]]:
    """Candidates (weight as (..., out, in), inputs) of a call; either operand of a product may be the weight."""
    if func is nn.functional.linear:
        inputs, weight = (*args, *(kwargs[key] for key in ("input", "weight") if key in kwargs))[:2]
        return [(weight, inputs)]
    if func in MATMULS:
        left, right = (*args, *kwargs.values())[:2]
    elif func in (torch.addmm, torch.baddbmm):
        left, right = args[1:3]
    else:
        return []
    if left.ndim < 2 or right.ndim < 2:
        return []
    return [(right.transpose(-1, -2), left), (left, right.transpose(-1, -2))]


def _use_of(name: str, parameter: Tensor, weight: Tensor, inputs: Tensor) -> Use | None:
    """The use of ``weight``, (out_features, in_features), if it is a whole matrix of the parameter."""
    if weight.ndim != 2:
        return None
    offset = (weight.data_ptr() - parameter.data_ptr()) // parameter.element_size()
    if parameter.ndim == 2 and weight.numel() == parameter.numel():
        stored, index, count = parameter, 0, 1
    elif parameter.ndim == 3 and weight.numel() == parameter[0].numel():
        stored, index, count = parameter[0], offset // parameter.stride(0), len(parameter)
    else:
        size = weight.numel()
        stored = weight if weight.is_contiguous() else weight.T
        if not (parameter.is_contiguous() and stored.is_contiguous()) or offset % size or parameter.numel() % size:
            return None
        index, count = offset // size, parameter.numel() // size
    for transposed, view in ((False, stored), (True, stored.T)):
        if weight.shape == view.shape and weight.stride() == view.stride():
            return Use(name, index, count, (stored.shape[0], stored.shape[1]), transposed, inputs)
    return None

"""The sparse forms that this PyTorch offers for a model's matrices, and the model with its matrices in such a form."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from statprune.errors import first_line
from statprune.model.opening import module_lists
from statprune.model.sparse_layers import (
    Multiply,
    SparseLinear,
    csr,
    multiply_csr,
    multiply_semi_structured,
    semi_structured,
)

SPARSE_ENOUGH = 0.3  # CSR takes an index for every weight: with fewer zeros it can only lose
TRIAL = 256  # rows and columns of the matrix that a form is tried with: a multiple of all that PyTorch asks for
TRIAL_TOLERANCE = 0.02  # relative; float16 and bfloat16 stay well below, a wrong kernel is near 1
NO_LINEAR = "it is no Linear's weight"


@dataclass(frozen=True)
class SparseForm:
    """One way of storing sparse matrices.

    Attributes:
        name: csr, 2:4 cusparselt or 2:4 cutlass.
        device: type of the devices that it is for.
        convert: a dense weight, (out_features, in_features) and contiguous, to the sparse one.
        multiply: what computes with it.
        problem: why a weight stays dense, in a few words; None: it can be converted.
    """

    name: str
    device: str
    convert: Callable[[Tensor], Tensor] = field(repr=False)
    multiply: Multiply = field(repr=False)
    problem: Callable[[Tensor], str | None] = field(repr=False)

    def module(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """A Linear with the weight in this form."""
        with warnings.catch_warnings():  # that CSR is in beta and 2:4 a prototype, which the guide says
            warnings.simplefilter("ignore", UserWarning)
            return SparseLinear(self.convert(weight.detach().contiguous()), bias, self.multiply)


@dataclass(frozen=True)
class Conversion:
    """A model's matrices in a sparse form, beside the dense ones, which stay where they are.

    Attributes:
        form: its name.
        modules: by path in the model, what replaces the Linear there.
        weights: of the converted matrices.
        dense_weights: of the blocks' matrices that stay dense.
        left: how many matrices stay dense, by reason.
    """

    form: str
    modules: Mapping[str, nn.Module] = field(repr=False)
    weights: int
    dense_weights: int
    left: Mapping[str, int]

    @contextmanager
    def installed(self, model: nn.Module) -> Iterator[None]:
        """Have the model compute with the sparse matrices while the body runs."""
        before = {path: model.get_submodule(path) for path in self.modules}
        try:
            for path, module in self.modules.items():
                model.set_submodule(path, module)
            yield
        finally:
            for path, module in before.items():
                model.set_submodule(path, module)


FORMS = (
    SparseForm("csr", "cpu", csr, multiply_csr, lambda weight: csr_problem(weight)),
    SparseForm(
        "2:4 cusparselt",
        "cuda",
        semi_structured(use_cutlass=False),
        multiply_semi_structured,
        lambda weight: semi_structured_problem(weight, torch.sparse.SparseSemiStructuredTensorCUSPARSELT),
    ),
    SparseForm(
        "2:4 cutlass",
        "cuda",
        semi_structured(use_cutlass=True),
        multiply_semi_structured,
        lambda weight: semi_structured_problem(weight, torch.sparse.SparseSemiStructuredTensorCUTLASS),
    ),
)


def available_forms(device: torch.device, dtype: torch.dtype) -> tuple[list[SparseForm], dict[str, str]]:
    """The forms that work on a device in a dtype, and by name why the others do not; each is tried on a matrix."""
    reasons = {form.name: absence(form, device, dtype) for form in FORMS}
    missing = {name: reason for name, reason in reasons.items() if reason is not None}
    return [form for form in FORMS if form.name not in missing], missing


def absence(form: SparseForm, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a form can't be used, in a few words; None where a 2:4 matrix of it multiplies as the dense one does."""
    if form.device != device.type:
        return f"it is for {'a CUDA GPU' if form.device == 'cuda' else 'a CPU'}"
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(TRIAL, TRIAL, generator=generator, device="cpu")
    values.view(TRIAL, -1, 4)[:, :, ::3] = 0
    inputs = torch.randn(2, TRIAL // 2, TRIAL, generator=generator, device="cpu").to(device, dtype)
    weight = values.to(device, dtype)
    if reason := form.problem(weight):
        return reason
    expected = functional.linear(inputs, weight).float()
    try:
        module = form.module(weight, None)
        with torch.inference_mode():
            found = module(inputs).float()
    except Exception as error:  # whatever a build of PyTorch, its libraries or the GPU lack
        return f"{type(error).__name__}: {first_line(error)}"
    difference = float((found - expected).norm() / expected.norm())
    if not difference <= TRIAL_TOLERANCE:
        return f"its product of a matrix of {TRIAL} × {TRIAL} is wrong (relative difference {difference:.2g})"
    return None


def csr_problem(weight: Tensor) -> str | None:
    """Why a weight stays dense beside CSR."""
    zeros = float((weight == 0).float().mean())
    return f"fewer than {SPARSE_ENOUGH:.0%} of its weights are zero" if zeros < SPARSE_ENOUGH else None


def semi_structured_problem(weight: Tensor, kind: type[torch.sparse.SparseSemiStructuredTensor]) -> str | None:
    """Why a weight can't be stored by one of PyTorch's 2:4 classes.

    Args:
        weight: (out_features, in_features).
        kind: has the dtypes that it takes, and of which numbers rows and columns have to be multiples for them.
    """
    if weight.dtype not in kind._DTYPE_SHAPE_CONSTRAINTS:
        return f"it is in {str(weight.dtype).removeprefix('torch.')}, which this kernel does not take"
    least = kind._DTYPE_SHAPE_CONSTRAINTS[weight.dtype]
    rows, columns = least.sparse_min_rows, least.sparse_min_cols
    if weight.shape[0] % rows or weight.shape[1] % columns:
        return f"its shape is no multiple of ({rows}, {columns})"
    kept = (weight != 0).reshape(len(weight), -1, 4).sum(2)
    return "it is not 2:4" if int(kept.max()) > 2 else None


def convert(model: nn.Module, form: SparseForm) -> Conversion:
    """Make sparse copies of the matrices of decoder blocks that the form takes.

    Args:
        model: a causal language model; it stays as it is.
        form: that works on its device.
    """
    modules: dict[str, nn.Module] = {}
    left: Counter[str] = Counter()
    weights = dense_weights = 0
    for path, module, name, parameter in block_matrices(model):
        weight = linear_weight(module) if name == "weight" else None
        reason = NO_LINEAR if weight is None else form.problem(weight)
        if weight is None or reason is not None:
            left[str(reason)] += 1
            dense_weights += parameter.numel()
            continue
        modules[path] = form.module(weight, getattr(module, "bias", None))
        weights += parameter.numel()
    return Conversion(form.name, modules, weights, dense_weights, dict(left))


def block_matrices(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Parameters of the decoder blocks with two dimensions and more: the module's path, itself, and the parameter."""
    prefix, blocks = next(iter(module_lists(model).items()), ("", nn.ModuleList()))
    for path, module in blocks.named_modules(prefix=prefix):
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                yield path, module, name, parameter


def linear_weight(module: nn.Module) -> Tensor | None:
    """The weight, (out_features, in_features), of a module that computes what a Linear does; None for others."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return module.weight
    if isinstance(module, Conv1D):  # stored as (in_features, out_features)
        transposed: Tensor = module.weight.T
        return transposed
    return None

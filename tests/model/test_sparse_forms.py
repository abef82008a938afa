"""Sparse forms: which matrices they take, what they compute, what they hold, and why others stay dense."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.sparse import SparseSemiStructuredTensorCUSPARSELT, SparseSemiStructuredTensorCUTLASS
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from statprune.model import sparse_forms
from statprune.model.sparse_forms import (
    FORMS,
    SparseForm,
    absence,
    available_forms,
    block_matrices,
    convert,
    linear_weight,
    semi_structured_problem,
)
from statprune.model.sparse_layers import held_bytes, multiply_semi_structured, own_memory
from tests.helpers.families import tiny_model
from tests.helpers.models import tiny_llama

CPU = torch.device("cpu")
CSR = FORMS[0]
CLASSES = (SparseSemiStructuredTensorCUSPARSELT, SparseSemiStructuredTensorCUTLASS)


def two_of_four(model):
    """Zero the first and third of every four weights along the inputs of what computes as a Linear does."""
    for _, module, _, _ in block_matrices(model):
        weight = linear_weight(module)
        if weight is not None:
            weight.data[:, ::2] = 0
    return model


def logits(model):
    ids = torch.arange(2 * 7).view(2, 7)
    with torch.inference_mode():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("family", ["LlamaConfig", "OPTConfig", "GPT2Config", "Qwen3MoeConfig"])
def test_csr_computes_the_same_and_the_dense_model_comes_back(family):
    model = two_of_four(tiny_model(family))
    dense, bytes_before = logits(model), held_bytes(model)
    conversion = convert(model, CSR)
    assert conversion.modules
    with conversion.installed(model):
        assert any(module.weight.layout == torch.sparse_csr for module in conversion.modules.values())
        torch.testing.assert_close(logits(model), dense, rtol=1e-3, atol=1e-4)
        assert held_bytes(model) != bytes_before
    assert torch.equal(logits(model), dense) and held_bytes(model) == bytes_before


def test_every_matrix_is_counted_once():
    model = two_of_four(tiny_llama())
    model.model.layers[1].mlp.up_proj.weight.data.fill_(1.0)
    conversion = convert(model, CSR)
    assert len(conversion.modules) == 3 * 7 - 1 and "model.layers.1.mlp.up_proj" not in conversion.modules
    assert conversion.left == {"fewer than 30% of its weights are zero": 1}
    assert conversion.dense_weights == 32 * 48
    assert conversion.weights == 3 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) - 32 * 48


def test_stacked_experts_stay_dense_and_are_counted():
    conversion = convert(two_of_four(tiny_model("Qwen3MoeConfig")), CSR)
    assert conversion.left["it is no Linear's weight"] >= 2 and conversion.dense_weights > 0


def test_bytes_of_csr_are_values_columns_and_rows():
    module = CSR.module(torch.tensor([[0.0, 2.0, 0.0, 1.0], [0.0, 0.0, 3.0, 0.0]]), torch.zeros(2))
    assert held_bytes(module) == 3 * 4 + 3 * 4 + 3 * 4 + 2 * 4
    assert module.out_features == 2 and module.in_features == 4


def test_tied_weights_are_counted_once_and_stay_tied():
    model = nn.ModuleDict({"one": nn.Linear(8, 4, bias=False), "two": nn.Linear(8, 4, bias=False)})
    model["two"].weight = model["one"].weight
    own_memory(model)
    assert held_bytes(model) == 8 * 4 * 4 and model["two"].weight is model["one"].weight


def test_a_linear_with_another_product_stays_dense():
    class Doubled(nn.Linear):
        def forward(self, inputs):
            return 2 * super().forward(inputs)

    assert linear_weight(Doubled(4, 4)) is None and linear_weight(nn.Linear(4, 2)).shape == (2, 4)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.BACKEND)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_shapes_and_dtypes_are_those_that_torch_takes(kind, dtype):
    for rows, columns in itertools.product((8, 16, 32, 48, 64, 128), (16, 32, 64, 96)):
        weight = torch.ones(rows, columns, dtype=dtype)
        weight[:, ::2] = 0
        stand_in = SimpleNamespace(
            is_cuda=True, dim=lambda: 2, is_contiguous=lambda: True, dtype=dtype, shape=torch.Size((rows, columns))
        )
        try:
            kind._validate_device_dim_dtype_shape(stand_in)
            is_taken = True
        except RuntimeError:
            is_taken = False
        assert (semi_structured_problem(weight, kind) is None) == is_taken, (rows, columns)


def test_three_of_four_is_not_two_of_four():
    weight = torch.zeros(64, 64, dtype=torch.float16)
    weight.view(64, -1, 4)[:, :, 2:] = 1
    assert semi_structured_problem(weight, CLASSES[0]) is None
    weight[63, 61] = 1
    assert semi_structured_problem(weight, CLASSES[0]) == "it is not 2:4"


def stand_in_for_cutlass(monkeypatch):
    """The CUTLASS form with its packing and PyTorch's dispatch, and a dense product in place of the GPU's."""

    def pack(weight):
        packed, meta = sparse_semi_structured_from_dense_cutlass(weight)
        return SparseSemiStructuredTensorCUTLASS(weight.shape, packed, meta, None, None, None)

    def multiply(self, inputs, *, bias=None, should_transpose_dense=False):
        assert should_transpose_dense
        return functional.linear(inputs, sparse_semi_structured_to_dense_cutlass(self.packed, self.meta), bias)

    monkeypatch.setattr(SparseSemiStructuredTensorCUTLASS, "_mm", multiply)
    return SparseForm("2:4", "cpu", pack, multiply_semi_structured, lambda weight: None)


@pytest.mark.parametrize("bias", [None, torch.arange(64.0).half()], ids=["without", "with"])
def test_semi_structured_tensors_go_through_a_linear(monkeypatch, bias):
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)).half()
    weight[:, 1::2] = 0
    module = stand_in_for_cutlass(monkeypatch).module(weight, bias)
    inputs = torch.randn(2, 3, 128, generator=torch.Generator().manual_seed(1)).half()
    with torch.inference_mode():
        for own in (inputs, inputs[:, :1], inputs.transpose(0, 1)):
            torch.testing.assert_close(module(own), functional.linear(own, weight, bias), rtol=0.01, atol=0.01)
    kept, metadata = 64 * 64 * 2, 64 * 128 // 4 * 4 // 8  # float16, and 4 bits for every four weights
    assert held_bytes(module) == kept + metadata + (64 * 2 if bias is not None else 0)


def test_only_forms_of_the_device_that_compute_right_are_offered(monkeypatch):
    forms, missing = available_forms(CPU, torch.float32)
    assert [form.name for form in forms] == ["csr"]
    assert missing == {name: "it is for a CUDA GPU" for name in ("2:4 cusparselt", "2:4 cutlass")}
    wrong = SparseForm("wrong", "cpu", lambda weight: 2 * weight, functional.linear, lambda weight: None)
    monkeypatch.setattr(sparse_forms, "FORMS", (wrong,))
    assert "is wrong (relative difference 1)" in available_forms(CPU, torch.float32)[1]["wrong"]


def test_a_form_that_torch_lacks_is_told_in_its_words():
    broken = SparseForm("broken", "cpu", torch.sparse.to_sparse_semi_structured, functional.linear, lambda weight: None)
    assert "Only CUDA tensors are currently supported" in absence(broken, CPU, torch.float16)


def test_the_dtype_alone_can_rule_a_form_out():
    form = SparseForm(
        "2:4", "cpu", lambda weight: weight, functional.linear, lambda own: semi_structured_problem(own, CLASSES[0])
    )
    assert absence(form, CPU, torch.float32) == "it is in float32, which this kernel does not take"
    assert absence(form, CPU, torch.float16) is None

"""Weights that torchao quantises: the numbers, the zeros, the bytes, and what can't be quantised."""

import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from statprune.errors import ModelError
from statprune.model.coverage import sparsity
from statprune.model.quantization import (
    NOT_LINEAR,
    Scheme,
    check_quantizable,
    model_bytes,
    quantizable,
    quantized,
    quantizing_bytes,
)
from statprune.walk.discover import find_blocks
from tests.helpers.families import tiny_model
from tests.helpers.windows import random_windows

pytest.importorskip("torchao")
WINDOWS = random_windows(2, 32)
SCHEMES = [Scheme("int8"), Scheme("int8", 8), Scheme("int4"), Scheme("int4", 8)]


def model_and_blocks(name):
    model = tiny_model(name)
    return model, find_blocks(model, WINDOWS)


@pytest.fixture
def llama():
    """A tiny Llama, each second weight of whose first block's matrices is zero, and its blocks."""
    model, blocks = model_and_blocks("LlamaConfig")
    for matrix in blocks[0].matrices:
        matrix.stored[:, ::2] = 0
    return model, blocks


def rounded(weight, scheme):
    """Symmetric quantisation in float64, written down from its definition: the values, and a step for each.

    The largest magnitude of a group is 127.5 steps of an int8; for int4 all of the group lies between -8 and 7 steps.
    """
    low, high = -(2 ** (scheme.bits - 1)), 2 ** (scheme.bits - 1) - 1
    groups = weight.double().reshape(len(weight), -1, scheme.group_size or weight.shape[1])
    if scheme.bits == 8:
        step = groups.abs().amax(-1, keepdim=True) / ((high - low) / 2)
    else:
        step = torch.maximum(groups.amax(-1, keepdim=True) / high, groups.amin(-1, keepdim=True) / low)
    step = step.expand_as(groups)
    integers = (groups / step.where(step > 0, 1)).round().clamp(low, high)
    return (integers * step).reshape(weight.shape), step.reshape(weight.shape)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_quantised_matrix_multiplies_as_the_definition_says(scheme, llama):
    model, blocks = llama
    module = model.model.layers[0].mlp.down_proj
    dense = module.weight.detach().double()
    wanted, step = rounded(dense, scheme)
    halves = ((dense / step.where(step > 0, 1)).abs() % 1 - 0.5).abs() < 1e-4  # rounding may go either way
    with quantized(model, blocks, scheme):
        actual = module(torch.eye(module.in_features)).double().T
        inputs = torch.randn(5, module.in_features)
        torch.testing.assert_close(module(inputs).double(), inputs.double() @ actual.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(actual[~halves], wanted[~halves], rtol=1e-6, atol=1e-8)
    assert ((actual - wanted).abs() <= 1.001 * step)[halves].all() and halves.double().mean() < 0.2
    assert ((actual - dense).abs() <= 0.5001 * step)[~halves].all() and not torch.equal(actual, dense)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_zeros_stay_exactly_zero_and_are_counted(scheme, llama):
    model, blocks = llama
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    zeros = sum(int((matrix.stored == 0).sum()) for block in blocks for matrix in block.matrices)
    after = kept = 0
    with quantized(model, blocks, scheme) as told:
        for block in blocks:
            for matrix in block.matrices:
                name = f"{block.path}.{matrix.parameter_name}"
                now = model.get_parameter(name).dequantize()
                after += int((now == 0).sum())
                kept += int((now[before[name] == 0] == 0).sum())
    assert (told.zeros, told.zeros_kept, told.zeros_after) == (zeros, zeros, after) and kept == zeros > 0
    assert told.matrices == sum(len(block.matrices) for block in blocks)
    assert after >= zeros and told.weights == sum(matrix.weights for block in blocks for matrix in block.matrices)


def test_the_model_has_its_own_weights_again_whatever_happens(llama):
    model, blocks = llama
    before = {name: (value, value.detach().clone()) for name, value in model.named_parameters()}
    modules = {name: dict(vars(module)) for name, module in model.named_modules()}
    with pytest.raises(KeyboardInterrupt), quantized(model, blocks, Scheme("int4", 8)):
        raise KeyboardInterrupt
    for name, value in model.named_parameters():
        assert value is before[name][0] and torch.equal(value, before[name][1])
    assert {name: vars(module).keys() for name, module in model.named_modules()} == {
        name: own.keys() for name, own in modules.items()
    }
    assert sparsity(blocks) == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_bytes_are_those_of_a_file_of_the_tensors(scheme, llama, tmp_path):
    model, blocks = llama
    plain = {name: value.detach().clone() for name, value in model.named_parameters()}
    assert model_bytes(model) == payload(plain, tmp_path)
    packed = model_bytes(model)
    with quantized(model, blocks, scheme) as told:
        for block in blocks:
            for matrix in block.matrices:
                name = f"{block.path}.{matrix.parameter_name}"
                weight, dense = model.get_parameter(name), plain.pop(name)
                plain |= {f"{name}.{part}": getattr(weight, part).clone() for part in weight.tensor_data_names}
                plain |= {f"{name}.zero_point": weight.zero_point.clone()}
                groups = len(dense) * math.ceil(dense.shape[1] / (scheme.group_size or dense.shape[1]))
                packed -= 4 * dense.numel() - dense.numel() * scheme.bits // 8 - 4 * groups
        assert told.bytes == payload(plain, tmp_path)
    assert told.packed_bytes == packed


def payload(tensors, folder):
    """Bytes that the tensors take in a file, without its header."""
    save_file(tensors, folder / "all.safetensors")
    content = (folder / "all.safetensors").read_bytes()
    return len(content) - 8 - int.from_bytes(content[:8], "little")


@pytest.mark.parametrize("name", ["GPT2Config", "MixtralConfig", "Qwen3MoeConfig"])
def test_matrices_of_another_kind_are_left_and_counted(name):
    model, blocks = model_and_blocks(name)
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    others = sum(own.weights for block in blocks for own in block.matrices if id(own.parameter) not in linear)
    found = quantizable(blocks)
    assert found.left[NOT_LINEAR] == others > 0
    total = sum(own.weights for block in blocks for own in (*block.matrices, *block.skipped))
    assert sum(module.weight.numel() for module in found.modules.values()) + sum(found.left.values()) == total
    if found.modules:
        with quantized(model, blocks, Scheme("int8")) as told:
            assert model(WINDOWS).logits.isfinite().all() and told.left == found.left
    else:
        with pytest.raises(ModelError, match=r"no matrix that torchao can quantise"):
            check_quantizable(model, blocks, Scheme("int8"))


def test_groups_that_do_not_divide_a_row_are_refused_by_name(llama):
    with pytest.raises(ModelError, match=r"group_size=5 does not divide the 32 inputs of model\.layers\.0\.self_attn"):
        check_quantizable(*llama, Scheme("int4", 5))
    check_quantizable(*llama, Scheme("int4", 16))


def test_memory_for_quantised_weights_is_predicted_above_what_they_take(llama):
    model, blocks = llama
    dense = sum(4 * matrix.weights for block in blocks for matrix in block.matrices)
    with quantized(model, blocks, Scheme("int4", 8)) as told:
        pass
    held = told.bytes - (model_bytes(model) - dense)
    assert held <= quantizing_bytes(blocks, Scheme("int4", 8)) < held + 16 * 48 * 32 + 1


@pytest.mark.long
def test_torchaos_warnings_of_its_extensions_reach_nobody():
    code = "import statprune.system, transformers.quantizers.quantizer_torchao, sys; assert 'torchao' in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""

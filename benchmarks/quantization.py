"""(g) torchao's schemes on this machine: which of them run, which keep zeros, and what they cost the bundled model.

    python -m benchmarks.quantization

The tables of docs/guide/quantise.md are made from the file that this writes.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from benchmarks import measure
from statprune import evaluation_windows, load_model
from statprune.model.loading import LoadedModel

if TYPE_CHECKING:  # the tables are made without torchao, too
    from torchao.core.config import AOBaseConfig

RESULT = measure.RESULTS / "quantization.json"
INT4: torch.dtype = getattr(torch, "int4")  # noqa: B009 - torch has it, and its type hints don't
ROWS, INPUTS = 128, 256  # of the matrix that every configuration is tried on
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WINDOWS, SEQ_LEN = 8, 256
GROUPS = {"32 inputs": 32, "64 inputs": 64, "a row": None}
MAPPINGS = {  # torchao's names, as the table shows them
    "SYMMETRIC": "int4, `SYMMETRIC` (torchao's default: 7.5 steps, the largest are clipped)",
    "SYMMETRIC_NO_CLIPPING_ERR": "int4, `SYMMETRIC_NO_CLIPPING_ERR` (ours)",
    "ASYMMETRIC": "int4, `ASYMMETRIC`",
}
INT8 = "int8, symmetric (ours)"
WORKS = "works, every zero stays zero"
LONGEST = 90  # characters of an error message that are kept


def configurations() -> Iterator[tuple[str, Callable[[], "AOBaseConfig"]]]:
    """Every weight-only scheme of 8 or 4 bits that this torchao has, as it is called there."""
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup
    from torchao.quantization.quant_primitives import MappingType
    from torchao.quantization.quantize_.workflows import Int4PackingFormat, IntxPackingFormat

    yield "`Int8WeightOnlyConfig()`", Int8WeightOnlyConfig
    yield "`Int8WeightOnlyConfig(granularity=PerGroup(64))`", partial(Int8WeightOnlyConfig, granularity=PerGroup(64))
    for packing in Int4PackingFormat:
        name = f"`Int4WeightOnlyConfig(int4_packing_format='{packing.value}')`"
        yield name, partial(Int4WeightOnlyConfig, int4_packing_format=packing)
    for mapping in MAPPINGS:
        name = f"`IntxWeightOnlyConfig(torch.int4, mapping_type={mapping})`"
        yield name, partial(IntxWeightOnlyConfig, INT4, PerGroup(32), MappingType[mapping])
    for layout in IntxPackingFormat:
        if layout is not IntxPackingFormat.UNPACKED_TO_INT8:  # which is the default
            name = f"`IntxWeightOnlyConfig(torch.int4, intx_packing_format='{layout.value}')`"
            yield name, partial(IntxWeightOnlyConfig, INT4, PerGroup(32), intx_packing_format=layout)


def outcome(make: Callable[[], "AOBaseConfig"], dtype: torch.dtype) -> str:
    """What becomes of a matrix, half of whose weights are zero: quantised, multiplied, and dequantised."""
    from torchao.quantization import quantize_

    weight = torch.randn(ROWS, INPUTS, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight[:, ::2] = 0
    holder = nn.Sequential(nn.Linear(INPUTS, ROWS, bias=False, dtype=dtype))
    holder[0].weight = nn.Parameter(weight)
    try:
        quantize_(holder, make())
        holder(torch.ones(1, INPUTS, dtype=dtype))
        lost = int((holder[0].weight.dequantize()[:, ::2] != 0).sum())
    except Exception as error:  # whatever it raises is the outcome
        message = str(error).strip().splitlines()[0]
        return f"`{type(error).__name__}: {message if len(message) <= LONGEST else message[:LONGEST] + '…'}`"
    return f"{lost} zeros lost" if lost else WORKS


def schemes() -> dict[str, "AOBaseConfig"]:
    """What the model is quantised with, by mapping and group."""
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerAxis, PerGroup, PerRow
    from torchao.quantization.quant_primitives import MappingType

    found: dict[str, AOBaseConfig] = {}
    for group, size in GROUPS.items():
        for mapping in MAPPINGS:
            granularity = PerAxis(0) if size is None else PerGroup(size)
            found[f"{mapping}, {group}"] = IntxWeightOnlyConfig(INT4, granularity, MappingType[mapping])
        found[f"int8, {group}"] = Int8WeightOnlyConfig(granularity=PerRow() if size is None else PerGroup(size))
    return found


def perplexities(loaded: LoadedModel) -> dict[str, float]:
    """Of the dense model with its blocks' matrices quantised, by scheme and granularity."""
    from torchao.quantization import quantize_

    windows = evaluation_windows(loaded.tokenizer, "bundled", seq_len=SEQ_LEN, max_windows=WINDOWS).ids
    modules = [own for own in loaded.model.get_submodule("model.layers").modules() if isinstance(own, nn.Linear)]
    weights = [module.weight for module in modules]
    measured = {"dense": measure.perplexity(loaded.model, windows)}
    for name, scheme in schemes().items():
        for module, weight in zip(modules, weights, strict=True):
            module.weight = weight
            quantize_(nn.Sequential(module), scheme)
        measured[name] = measure.perplexity(loaded.model, windows)
        print(f"{name}: {measured[name]:.2f}", flush=True)
    return measured


def tried_table(result: dict[str, Any]) -> str:
    """What became of every scheme, as the guide shows it."""
    lines = ["| configuration | outcome |", "| --- | --- |"]
    for name, outcomes in result["tried"].items():
        texts = set(outcomes.values())
        own = texts.pop() if len(texts) == 1 else "; ".join(f"{dtype}: {text}" for dtype, text in outcomes.items())
        lines.append(f"| {name} | {own} |")
    return "\n".join(lines) + "\n"


def perplexities_table(result: dict[str, Any]) -> str:
    """Perplexities by mapping and group, as the guide shows them."""
    found = result["perplexities"]
    lines = [f"| | {' | '.join(f'a scale for {own}' for own in GROUPS)} |", f"| --- |{' ---: |' * len(GROUPS)}"]
    for mapping, shown in (MAPPINGS | {"int8": INT8}).items():
        cells = [f"{found[f'{mapping}, {group}']:.2f}" for group in GROUPS]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try the schemes, measure, and write."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    tried = {name: {dtype: outcome(make, own) for dtype, own in DTYPES.items()} for name, make in configurations()}
    result = {
        "what": "schemes of torchao, and perplexities of the dense SmolLM2-135M with its blocks quantised, float32",
        "machine": measure.machine(("statprune", "torch", "torchao", "transformers")),
        "windows": [WINDOWS, SEQ_LEN],
        "tried": tried,
        "perplexities": perplexities(load_model()),
    }
    measure.write(RESULT, result)
    print(tried_table(result), perplexities_table(result), sep="\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()

"""(d) On one GPU: random models of Llama 2's shapes, bfloat16, 128 windows of 2048 tokens.

    python -m benchmarks.gpu [--shape 7b 70b] [--method cvr+energy sparsegpt]

The 7B shape is built on the device. The 70B shape is streamed: a block's weights are made on the host when they are
asked for, where offload=cpu has them, and forgotten when pruned. ``--shape tiny --device cpu`` tries it anywhere.
"""

import argparse
import time
from typing import Any

import torch
from accelerate import init_empty_weights
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks import measure
from benchmarks.methods import METHODS, prepared
from statprune import LoadedModel, PruneRuntime, find_blocks
from statprune.model.loading import ModelSource
from statprune.model.offload import Source, Streamer, Weights, placeholder
from statprune.pruning.loop import prune
from statprune.walk.activations import Placement

# hidden size, intermediate size, blocks, heads, key-value heads, vocabulary, streamed
SHAPES = {
    "tiny": (64, 176, 2, 4, 2, 128, True),
    "7b": (4096, 11008, 32, 32, 32, 32000, False),
    "70b": (8192, 28672, 80, 64, 8, 32000, True),
}


class RandomSource(Source):
    """Blocks' weights, made when they are asked for and not kept; the same each time."""

    def __init__(self, shapes: list[dict[str, torch.Size]], dtype: torch.dtype, pin: bool):
        self._shapes, self._dtype, self._pin = shapes, dtype, pin

    def read(self, index: int) -> Weights:
        """Normal numbers for matrices, ones for vectors."""
        weights = {}
        for name, shape in self._shapes[index].items():
            tensor = torch.empty(shape, dtype=self._dtype, pin_memory=self._pin)
            generator = torch.Generator().manual_seed(index)
            weights[name] = tensor.normal_(std=0.02, generator=generator) if len(shape) > 1 else tensor.fill_(1)
        return weights

    def write(self, index: int, weights: Weights) -> None:
        """Forget them."""

    def close(self) -> None:
        """Nothing to remove."""


def build(shape: str, device: str) -> LoadedModel:
    """The random model, on the device or streamed to it."""
    hidden, intermediate, blocks, heads, pairs, vocabulary, streamed = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=pairs,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        dtype=torch.bfloat16,
    )
    if not streamed:
        with torch.device(device):
            return _loaded(LlamaForCausalLM(config), None)
    with init_empty_weights():
        model = LlamaForCausalLM(config)
    modules = list(model.model.layers)
    shapes = [{name: parameter.shape for name, parameter in module.named_parameters()} for module in modules]
    inside = {id(parameter) for module in modules for parameter in module.parameters()}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in inside:
                module._parameters[name] = nn.Parameter(placeholder(parameter, torch.device(device)), False)
            elif parameter is not None:
                tensor = torch.empty(parameter.shape, dtype=parameter.dtype, device=device).normal_(std=0.02)
                module._parameters[name] = nn.Parameter(tensor, False)
    source = RandomSource(shapes, torch.bfloat16, pin=device != "cpu")
    return _loaded(model, Streamer(modules, source, torch.device(device)))


def _loaded(model: LlamaForCausalLM, streamer: Streamer | None) -> LoadedModel:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    return LoadedModel(model.bfloat16().eval(), tokenizer, streamer, ModelSource("random"))


def main() -> None:
    """Measure each shape and method, write the rows where they are a GPU's, and print them."""
    parser = measure.parser_of_windows(__doc__, samples=128, seq_len=2048)
    parser.add_argument("--shape", nargs="*", choices=SHAPES, default=["7b", "70b"])
    parser.add_argument("--method", nargs="*", choices=METHODS)
    parser.add_argument("--propagation", choices=("pruned", "sequential", "dense"), default="pruned")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; try the path with --shape tiny --device cpu --samples 4 --seq-len 32")
    rows = [
        _row(shape, method, arguments)
        for shape in arguments.shape
        for method in arguments.method or (["cvr+energy", "sparsegpt"] if shape != "70b" else ["cvr+energy"])
    ]
    result = {
        "what": "random models of Llama 2's shapes, bfloat16, one GPU",
        "machine": measure.machine(("statprune", "torch", "transformers", "triton")),
        "calibration": [arguments.samples, arguments.seq_len],
        "rows": rows,
    }
    if arguments.device == "cuda":
        measure.write(measure.RESULTS / "gpu.json", result)
    for row in rows:
        print(f"{row['shape']} {row['method']}: {row['seconds']:.1f} s, {row['peak_device_bytes'] / 2**30:.1f} GiB")


def _row(shape: str, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    device = arguments.device
    model = build(shape, device)
    vocabulary = SHAPES[shape][5]
    windows: Tensor = torch.randint(vocabulary, (arguments.samples, arguments.seq_len))
    blocks = find_blocks(model, windows)
    streamed = SHAPES[shape][6]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    measure.synchronize(device)
    start = time.perf_counter()
    runtime = PruneRuntime(placement=Placement.host if streamed else Placement.device)
    phases = prune(model, windows, prepared(name, propagation=arguments.propagation), runtime, blocks).seconds
    measure.synchronize(device)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {
        "shape": shape,
        "method": name,
        "propagation": arguments.propagation,
        "seconds": seconds,
        "phases": phases,
        "peak_device_bytes": peak,
    }


if __name__ == "__main__":
    main()

"""How much memory runs on one GPU are predicted to take, for models of Llama's shapes.

    python -m benchmarks.memory [--samples 128] [--seq-len 2048] [--evaluated 166]

The prediction is the one that every run makes before it starts (statprune/pruning/budget.py). The models have shapes
and no values, so that neither a GPU nor a checkpoint is needed. It prints the table of docs/start/gpu.md.
"""

import argparse
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import measure
from benchmarks.methods import prepared
from statprune import PruneSpec
from statprune.model.matrix import Block, PrunableMatrix
from statprune.model.offload import HostSource, Streamer, size_of
from statprune.pruning.budget import MemoryNeed, TokenBatch, Workload, memory_need
from statprune.pruning.calibration import automatic_batch_size
from statprune.walk.activations import Placement

GPU = torch.device("cuda")
METHODS = {"cvr+energy": "cvr + energy", "sparsegpt": "SparseGPT", "admm": "ADMM (`best`)"}
SAMPLES, SEQ_LEN = 128, 2048
EVALUATED = 166  # windows of 2048 that WikiText-2 has for Llama 2
EVALUATION_BATCH = 4  # evaluation.batch_size


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, as in its config.json."""

    hidden: int
    intermediate: int
    blocks: int
    heads: int
    pairs: int
    vocabulary: int
    tied: bool = False


SHAPES = {
    "Llama-3.2-1B": Shape(2048, 8192, 16, 32, 8, 128256, tied=True),
    "Llama-2-7B": Shape(4096, 11008, 32, 32, 32, 32000),
    "Llama-2-13B": Shape(5120, 13824, 40, 40, 40, 32000),
    "Llama-2-70B": Shape(8192, 28672, 80, 64, 8, 32000),
}


class OnGpu(LlamaForCausalLM):
    """A model without values that says it is on a GPU."""

    @property
    def device(self) -> torch.device:
        """A GPU."""
        return GPU


@dataclass(frozen=True)
class Need:
    """What one run needs.

    Attributes:
        weights: bytes of the whole model.
        held: bytes of the model that stay on the GPU.
        memory: beyond that.
    """

    weights: int
    held: int
    memory: MemoryNeed

    @property
    def device(self) -> int:
        """Peak bytes of the GPU while hidden states wait on the host."""
        return self.held + self.memory.peak(Placement.host)

    @property
    def hidden(self) -> int:
        """Bytes of the hidden states that wait, on the host or where there is room on the GPU."""
        return self.memory.activations + self.memory.kept


@lru_cache(2)
def built(shape: Shape) -> OnGpu:
    """The model in bfloat16, on no device."""
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.pairs,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
    )
    with torch.device("meta"):
        return OnGpu(config).bfloat16()


def blocks_of(model: LlamaForCausalLM, streamed: bool) -> list[Block]:
    """The model's blocks with all of their linear layers."""
    modules = list(model.model.layers)
    shapes = [
        [(name, linear) for name, linear in module.named_modules() if isinstance(linear, nn.Linear)]
        for module in modules
    ]
    streamer = Streamer(modules, HostSource(modules, pin=False), torch.device("meta")) if streamed else None
    return [
        Block(index, f"model.layers.{index}", module, [_matrix(*own) for own in linears], [], None, streamer)
        for index, (module, linears) in enumerate(zip(modules, shapes, strict=True))
    ]


def _matrix(name: str, linear: nn.Linear) -> PrunableMatrix:
    return PrunableMatrix(
        name=name,
        parameter_name=f"{name}.weight",
        parameter=linear.weight,
        index=0,
        count=1,
        shape=(linear.out_features, linear.in_features),
        transposed=False,
    )


def need_of(shape: Shape, spec: PruneSpec, streamed: bool, calibration: TokenBatch, evaluated: int) -> Need:
    """What a run needs.

    Args:
        shape: of the model.
        spec: what the run does.
        streamed: blocks wait on the host or on disk.
        calibration: its windows.
        evaluated: windows of the same length that perplexity and fidelity are measured on.
    """
    model = built(shape)
    weights = sum(map(size_of, model.parameters()))
    inside = sum(size_of(parameter) for module in model.model.layers for parameter in module.parameters())
    workload = Workload(
        calibration=calibration,
        batch_size=automatic_batch_size(calibration.length, GPU),
        evaluation=TokenBatch(EVALUATION_BATCH, calibration.length),
        evaluated_windows=evaluated,
        requests=TokenBatch(),
        kind=spec.statistics_kind,
        sampled_rows=spec.sampled_rows,
        working_copies=spec.working_copies,
        gram_copies=spec.gram_copies,
        is_sequential=False,
        kept=TokenBatch(evaluated, calibration.length),
    )
    memory = memory_need(model, blocks_of(model, streamed), workload)
    return Need(weights, weights - inside if streamed else weights, memory)


def table(samples: int = SAMPLES, seq_len: int = SEQ_LEN, evaluated: int = EVALUATED) -> str:
    """A row for each model and method, in GiB; one for all methods of a model that need as much."""
    calibration = TokenBatch(samples, seq_len)
    lines = ["| model | weights | method | `offload=none` | `offload=cpu` or `disk` | hidden states | two blocks |"]
    lines.append("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for label, shape in SHAPES.items():
        methods: dict[tuple[str, ...], list[str]] = {}
        for method, name in METHODS.items():
            whole, streamed = (need_of(shape, prepared(method), each, calibration, evaluated) for each in (False, True))
            sizes = (whole.device, streamed.device, whole.hidden, streamed.memory.blocks)
            methods.setdefault(tuple(f"{size / 2**30:.1f}" for size in sizes), []).append(name)
        for number, (cells, names) in enumerate(methods.items()):
            model = ("", "") if number else (label, f"{whole.weights / 2**30:.1f}")
            lines.append(f"| {' | '.join((*model, ', '.join(names), *cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table."""
    parser: argparse.ArgumentParser = measure.parser_of_windows(__doc__, SAMPLES, SEQ_LEN)
    parser.add_argument("--evaluated", type=int, default=EVALUATED, help="windows that quality is measured on")
    arguments = parser.parse_args()
    print(table(arguments.samples, arguments.seq_len, arguments.evaluated), end="")


if __name__ == "__main__":
    main()

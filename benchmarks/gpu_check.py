"""(h) On one GPU, in a few minutes: what it computes beside a CPU, what its modes change, and what it costs.

    benchmarks/gpu_check.sh [FOLDER]                        everything, with the tests that need a GPU
    python -m benchmarks.gpu_check SECTION … --output FOLDER

Every section writes a file of its own as soon as it is done, so that an interrupted check keeps what it has found.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks import gpu, measure
from benchmarks.methods import prepared
from statprune import (
    LoadedModel,
    Moments,
    PruneRuntime,
    PruneSpec,
    Unstructured,
    calibration_windows,
    evaluation_windows,
    find_blocks,
    get_method,
    load_model,
    window_losses,
)
from statprune import prune as prune_by_name
from statprune.model.loading import ModelSource
from statprune.model.offload import HostSource, Streamer
from statprune.pruning.budget import TokenBatch, Workload, memory_need
from statprune.pruning.calibration import automatic_batch_size
from statprune.pruning.loop import prune
from statprune.walk.activations import Placement

# method, compensation, pattern: one of each kind of computation
COMPARED: dict[str, tuple[str, str | None, float | str]] = {
    "magnitude": ("magnitude", None, 0.5),
    "wanda": ("wanda", None, 0.5),
    "wanda 2:4": ("wanda", None, "2:4"),
    "ria": ("ria", None, 0.5),
    "cvr + energy": ("cvr", "energy", 0.5),
    "wanda + moments": ("wanda", "moments", 0.5),
    "wanda + least squares": ("wanda", "least_squares", 0.5),
    "sparsegpt": ("sparsegpt", None, 0.5),
    "sparsegpt 2:4": ("sparsegpt", None, "2:4"),
    "admm": ("admm", None, 0.5),
}
IN_BFLOAT16 = ("wanda", "cvr + energy", "sparsegpt")
BLOCKS = 4  # of a large shape: as long as its ratios to the plain forward do not change
VOCABULARY = 32000


@dataclass(frozen=True)
class Pruned:
    """What one device made of the bundled model.

    Attributes:
        perplexity: of the pruned model.
        masks: where the blocks' pruned matrices are zero, by name, on the host.
    """

    perplexity: float
    masks: dict[str, Tensor]


def agreement() -> dict[str, Any]:
    """Masks and perplexities of the bundled model, pruned on a CPU and on the GPU."""
    rows = []
    for dtype, names in (("float32", tuple(COMPARED)), ("bfloat16", IN_BFLOAT16)):
        loaded = load_model(dtype=dtype)
        windows = calibration_windows(loaded.tokenizer, samples=4, seq_len=256).ids
        evaluated = evaluation_windows(loaded.tokenizer, seq_len=256, max_windows=8).ids
        for name in names:
            on_cpu, on_gpu = (_pruned(loaded, name, device, windows, evaluated) for device in ("cpu", "cuda"))
            rows.append({"dtype": dtype, "method": name, **_compared(on_cpu, on_gpu)})
            print(rows[-1], flush=True)
    return {"what": "bundled model, 4 windows of 256, evaluated on 8 of 256", "rows": rows}


def _pruned(loaded: LoadedModel, name: str, device: str, windows: Tensor, evaluated: Tensor) -> Pruned:
    method, compensation, pattern = COMPARED[name]
    model = copy.deepcopy(loaded.model).to(device)  # type: ignore[arg-type]  # transformers wraps it without its types
    prune_by_name(model, method, pattern, windows=windows, compensation=compensation)
    blocks = find_blocks(model, windows[:1])
    masks = {block.full_name(matrix): (matrix.stored == 0).cpu() for block in blocks for matrix in block.matrices}
    return Pruned(window_losses(model, evaluated).mean().exp().item(), masks)


def _compared(on_cpu: Pruned, on_gpu: Pruned) -> dict[str, Any]:
    """How far two results are apart: perplexities, and entries of the masks in the first block and in all of them."""
    different = {name: int((mask != on_gpu.masks[name]).sum()) for name, mask in on_cpu.masks.items()}
    first = [name for name in different if ".layers.0." in name]
    return {
        "cpu": on_cpu.perplexity,
        "gpu": on_gpu.perplexity,
        "apart": on_gpu.perplexity / on_cpu.perplexity - 1,
        "mask_entries_first_block": sum(different[name] for name in first),
        "mask_entries": sum(different.values()),
        "of": sum(mask.numel() for mask in on_cpu.masks.values()),
    }


def placements() -> dict[str, Any]:
    """Whether every place for blocks and for hidden states gives the same weights, bit for bit."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=512, intermediate_size=1408, num_hidden_layers=4, num_attention_heads=8, vocab_size=1000
        )
        LlamaForCausalLM(config).bfloat16().save_pretrained(folder, max_shard_size="4MB")
        tokenizer = Tokenizer(models.WordLevel({"<s>": 0}, unk_token="<s>"))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<s>").save_pretrained(folder)
        windows = torch.randint(1000, (16, 256))
        for name in ("cvr+energy", "sparsegpt"):
            first: dict[str, Tensor] | None = None
            for offload in ("none", "cpu", "disk"):
                for placement in (Placement.device, Placement.host, Placement.disk):
                    own = _weights(folder, name, offload, placement, windows)
                    first = first or own
                    is_equal = all(torch.equal(own[key], first[key]) for key in first)
                    rows.append({"method": name, "offload": offload, "activations": placement.name, "equal": is_equal})
                    print(rows[-1], flush=True)
    return {"what": "random Llama, bfloat16, beside offload=none with activations on the device", "rows": rows}


def _weights(folder: str, name: str, offload: str, placement: Placement, windows: Tensor) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as waiting, tempfile.TemporaryDirectory() as new:
        loaded = load_model(folder, device="cuda", offload=offload, folder=Path(new))
        blocks = find_blocks(loaded, windows[:1])
        prune(loaded, windows, prepared(name), PruneRuntime(placement=placement, folder=Path(waiting)), blocks)
        weights: dict[str, Tensor] = {}
        for block in blocks:
            with block.loaded():
                weights |= {block.full_name(matrix): matrix.stored.cpu().clone() for matrix in block.matrices}
        if loaded.streamer is not None:
            loaded.streamer.close()
        return weights


def speed(samples: int = 128, seq_len: int = 2048) -> dict[str, Any]:
    """Seconds of pruning over those of the plain forward, and the peak of memory over the predicted one."""
    windows = torch.randint(VOCABULARY, (samples, seq_len))
    rows = []
    for name, spec in _timed():
        loaded = _few_blocks("7b")
        blocks = find_blocks(loaded, windows[:1])
        prune(loaded, windows[:8], spec, PruneRuntime(), blocks)  # kernels are built, and libraries loaded
        forward = min(_forward_seconds(loaded, windows) for _ in range(2))
        held = torch.cuda.memory_allocated()
        predicted = held + memory_need(loaded.model, blocks, _workload(spec, windows)).peak(Placement.device)
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        phases = prune(loaded, windows, spec, PruneRuntime(), blocks).seconds
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        rows.append(
            {
                "method": name,
                "propagation": spec.propagation.value,
                "seconds": seconds,
                "forward": forward,
                "over_one_forward": seconds / forward,
                "over_two_forwards": seconds / forward / 2,
                "phases": phases,
                "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
                "predicted_gib": predicted / 2**30,
            }
        )
        print(rows[-1], flush=True)
        del loaded, blocks
        torch.cuda.empty_cache()
    return {"what": f"{BLOCKS} blocks of Llama 2 7B's shape, bfloat16, {samples} windows of {seq_len}", "rows": rows}


def _few_blocks(shape: str) -> LoadedModel:
    hidden, intermediate, _, heads, pairs, vocabulary, _ = gpu.SHAPES[shape]
    name = f"{shape}, {BLOCKS} blocks"
    gpu.SHAPES[name] = (hidden, intermediate, BLOCKS, heads, pairs, vocabulary, False)
    return gpu.build(name, "cuda")


def _timed() -> list[tuple[str, PruneSpec]]:
    scales = PruneSpec(get_method("wanda"), Unstructured(0.5), Moments(groups=64))
    named = [("cvr+energy", "pruned"), ("cvr+energy", "sequential"), ("sparsegpt", "pruned"), ("admm", "pruned")]
    return [*((name, prepared(name, propagation=how)) for name, how in named), ("wanda + 64 scales", scales)]


def _workload(spec: PruneSpec, windows: Tensor) -> Workload:
    count, length = windows.shape
    return Workload(
        calibration=TokenBatch(count, length),
        batch_size=automatic_batch_size(length, torch.device("cuda")),
        evaluation=TokenBatch(),
        evaluated_windows=0,
        requests=TokenBatch(),
        kind=spec.statistics_kind,
        sampled_rows=spec.sampled_rows,
        working_copies=spec.working_copies,
        gram_copies=spec.gram_copies,
        is_sequential=spec.propagation.value == "sequential",
        kept=TokenBatch(),
    )


def _forward_seconds(loaded: LoadedModel, windows: Tensor) -> float:
    """Seconds of the plain forward, without logits."""

    def forward() -> None:
        with torch.no_grad():
            for ids in windows.split(measure.FORWARD_BATCH):
                loaded.model.model(ids.cuda(), use_cache=False)

    return _seconds(forward)


def _seconds(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def streaming(samples: int = 32, seq_len: int = 2048) -> dict[str, Any]:
    """A few blocks of a 70B shape whose weights wait on the host: the run, its computation alone, its copies alone."""
    windows = torch.randint(VOCABULARY, (samples, seq_len))
    loaded = _few_blocks("70b")
    spec, runtime = prepared("cvr+energy"), PruneRuntime()
    prune(loaded, windows[:8], spec, runtime)
    alone = _seconds(lambda: prune(loaded, windows, spec, runtime))
    modules = list(loaded.model.model.layers.cpu())
    torch.cuda.empty_cache()
    streamer = Streamer(modules, HostSource(modules, pin=True), torch.device("cuda"))
    streamed = LoadedModel(loaded.model, loaded.tokenizer, streamer, ModelSource("random"))
    copies = _seconds(lambda: _copy_all(streamer))
    copies = _seconds(lambda: _copy_all(streamer))  # the first time reserves memory that is pinned
    torch.cuda.reset_peak_memory_stats()
    seconds = _seconds(lambda: prune(streamed, windows, spec, runtime))
    return {
        "what": f"{BLOCKS} blocks of Llama 2 70B's shape, bfloat16, {samples} windows of {seq_len}, cvr + energy",
        "seconds": seconds,
        "computation": alone,
        "copies": copies,
        "over_the_larger": seconds / max(alone, copies),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
    }


def _copy_all(streamer: Streamer) -> None:
    """Every block to the device and back."""
    for index in range(len(streamer.modules)):
        with streamer.held(index, changed=True):
            pass
    streamer.settle()


def profile(samples: int = 16, seq_len: int = 2048) -> dict[str, Any]:
    """The twenty kernels that take most time, and how often the host waited for the GPU."""
    windows = torch.randint(VOCABULARY, (samples, seq_len))
    rows = {}
    for name in ("cvr+energy", "sparsegpt"):
        loaded = _few_blocks("7b")
        blocks = find_blocks(loaded, windows[:1])
        prune(loaded, windows[:8], prepared(name), PruneRuntime(), blocks)
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profiler:
            prune(loaded, windows, prepared(name), PruneRuntime(), blocks)
            torch.cuda.synchronize()
        averages = profiler.key_averages()
        events = [event for event in averages if event.device_type.name == "CUDA"]
        events.sort(key=lambda event: -event.self_device_time_total)
        waits = {event.key: event.count for event in averages if "Synchronize" in event.key}
        rows[name] = {
            "kernels": [_kernel(event) for event in events[:20]],
            "waits": waits,
        }
        print(name, waits, *map(_kernel, events[:20]), sep="\n  ", flush=True)
    return {"what": f"{BLOCKS} blocks of a 7B shape, {samples} windows of {seq_len}: kernel, calls, ms", "rows": rows}


def _kernel(event: Any) -> tuple[str, int, float]:  # noqa: ANN401 - the profiler's own
    return event.key[:80], event.count, round(event.self_device_time_total / 1e3, 2)


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "placements": placements,
    "speed": speed,
    "streaming": streaming,
    "profile": profile,
    "agreement": agreement,
}


def main() -> None:
    """Run the sections that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu_check"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; run this on a machine with a GPU")
    for name in arguments.sections or SECTIONS:
        start = time.perf_counter()
        result = {**SECTIONS[name](), "seconds_of_the_check": time.perf_counter() - start}
        machine = measure.machine(("statprune", "torch", "transformers", "triton"))
        measure.write(arguments.output / f"{name}.json", {"machine": machine, **result})


if __name__ == "__main__":
    main()

"""(h) On one GPU, in a few minutes: what it computes beside a CPU, what its modes change, and what it costs.

    benchmarks/gpu_check.sh [FOLDER]                        everything, with the tests that need a GPU
    python -m benchmarks.gpu_check SECTION … --output FOLDER

Every section has a file of its own, which is written anew with every row, so that an interrupted check keeps what it
has found. Where something misses its target the exit status is 1.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks import gpu, gpu_agreement, measure
from benchmarks.gpu_findings import Findings, over
from benchmarks.methods import prepared
from statprune import (
    LoadedModel,
    Moments,
    PruneRuntime,
    PruneSpec,
    Unstructured,
    find_blocks,
    get_method,
    load_model,
)
from statprune.model.loading import ModelSource
from statprune.model.matrix import Block
from statprune.model.offload import HostSource, Streamer
from statprune.pruning.budget import TokenBatch, Workload, memory_need
from statprune.pruning.calibration import automatic_batch_size
from statprune.pruning.loop import prune
from statprune.walk.activations import Placement

BLOCKS, WHOLE = 4, 32  # blocks of a large shape that are timed, and those of the model whose shape it is
VOCABULARY = 32000
# most seconds over the forwards: two, but for sequential
TARGETS = {
    ("cvr+energy", "pruned"): 1.1,
    ("cvr+energy", "sequential"): 1.25,
    ("wanda + 64 scales", "pruned"): 1.2,
    ("sparsegpt", "pruned"): 2.0,
}
MOST_OVER_PREDICTED, MOST_OVER_LARGER, MOST_STREAMED_GIB = 1.25, 1.2, 24.0


def placements(findings: Findings) -> None:
    """Whether every place for blocks and for hidden states gives the same weights, bit for bit."""
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
            places = (Placement.device, Placement.host, Placement.disk)
            for offload, placement in itertools.product(("none", "cpu", "disk"), places):
                own = _weights(folder, name, offload, placement, windows)
                first = first or own
                is_equal = all(torch.equal(own[key], first[key]) for key in first)
                row = {"method": name, "offload": offload, "activations": placement.name, "equal": is_equal}
                findings.add(row, None if is_equal else "the weights are other bits")


def _weights(folder: str, name: str, offload: str, placement: Placement, windows: Tensor) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as waiting, tempfile.TemporaryDirectory() as new:
        loaded = load_model(folder, device="cuda", offload=offload, folder=Path(new))
        blocks = find_blocks(loaded, windows[:1])
        runtime = PruneRuntime(4, placement=placement, folder=Path(waiting))  # hidden states of four batches move
        prune(loaded, windows, prepared(name), runtime, blocks)
        weights: dict[str, Tensor] = {}
        for block in blocks:
            with block.loaded():
                weights |= {block.full_name(matrix): matrix.stored.cpu().clone() for matrix in block.matrices}
        if loaded.streamer is not None:
            loaded.streamer.close()
        return weights


def speed(findings: Findings, samples: int = 128, seq_len: int = 2048) -> None:
    """Seconds of pruning over those of the plain forward, and the peak of memory over the predicted one."""
    windows = torch.randint(VOCABULARY, (samples, seq_len))
    for name, spec in _timed():
        loaded = _few_blocks("7b")
        blocks = find_blocks(loaded, windows[:1])
        prune(loaded, windows[:8], spec, PruneRuntime(), blocks)  # kernels are built, and libraries loaded
        forward = min(_forward_seconds(loaded, windows) for _ in range(2))
        predicted = _predicted_peak(loaded, blocks, spec, windows)
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        phases = prune(loaded, windows, spec, PruneRuntime(), blocks).seconds
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        forwards = 1 if spec.propagation.value == "sequential" else 2
        at_32 = over_forwards_of_32_blocks(phases, forward, forwards)
        peak = torch.cuda.max_memory_allocated()
        row = {
            "method": name,
            "propagation": spec.propagation.value,
            "seconds": seconds,
            "forward": forward,
            "over_one_forward": seconds / forward,
            "over_two_forwards": seconds / forward / 2,
            "over_its_forwards_of_32_blocks": at_32,
            "phases": phases,
            "peak_gib": peak / 2**30,
            "predicted_gib": predicted / 2**30,
        }
        target = TARGETS.get((name, spec.propagation.value))
        slow = over("the ratio to the forwards, of 32 blocks,", at_32, target) if target else None
        findings.add(row, slow, over("the peak over the predicted one", peak / predicted, MOST_OVER_PREDICTED))
        del loaded, blocks
        torch.cuda.empty_cache()


def over_forwards_of_32_blocks(phases: dict[str, float], forward: float, forwards: int) -> float:
    """What a few blocks tell of a 7B model's 32: the last block is never propagated, and is one of them there, too.

    Args:
        phases: seconds of pruning ``BLOCKS`` blocks.
        forward: seconds of the plain forward through them.
        forwards: how many of those 32 blocks' pruning is compared with.
    """
    per_block = (phases["observe"] + phases["solve"]) * WHOLE / BLOCKS
    propagated = phases.get("propagate", 0.0) * (WHOLE - 1) / (BLOCKS - 1)
    return (per_block + propagated) / (forwards * forward * WHOLE / BLOCKS)


def _predicted_peak(loaded: LoadedModel, blocks: Sequence[Block], spec: PruneSpec, windows: Tensor) -> int:
    """Bytes that the device should hold at most while this is pruned."""
    need = memory_need(loaded.model, blocks, _workload(spec, windows))
    return torch.cuda.memory_allocated() + need.peak(Placement.device)


def _few_blocks(shape: str, blocks: int = BLOCKS) -> LoadedModel:
    hidden, intermediate, _, heads, pairs, vocabulary, _ = gpu.SHAPES[shape]
    name = f"{shape}, {blocks} blocks"
    gpu.SHAPES[name] = (hidden, intermediate, blocks, heads, pairs, vocabulary, False)
    return gpu.build(name, "cuda")


def _timed() -> list[tuple[str, PruneSpec]]:
    scales = PruneSpec(get_method("wanda"), Unstructured(0.5), Moments(groups=64))
    pruned = [(name, "pruned") for name in ("cvr+energy", "sparsegpt", "wanda", "admm")]
    named = [*pruned[:1], ("cvr+energy", "sequential"), *pruned[1:]]
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


def streaming(findings: Findings, samples: int = 32, seq_len: int = 2048) -> None:
    """Blocks of a 70B shape whose weights wait on the host: the run, its computation alone, its copies alone.

    The first block's way to the GPU and the last one's way back overlap nothing. Of eight blocks they are half as much
    as of four, and of 80 a twentieth: the seconds that four blocks more take are what most blocks of a model take.
    """
    rows = [_streamed(blocks, torch.randint(VOCABULARY, (samples, seq_len))) for blocks in (BLOCKS, 2 * BLOCKS)]
    for row in rows:
        findings.add(row, over("the peak in GiB", row["peak_gib"], MOST_STREAMED_GIB))
    more = {key: rows[1][key] - rows[0][key] for key in ("seconds", "computation", "copies")}
    ratio = more["seconds"] / max(more["computation"], more["copies"])
    row = {"blocks": f"{2 * BLOCKS} less {BLOCKS}", **more, "over_the_larger": ratio}
    findings.add(row, over("streaming over the larger of computing and copying", ratio, MOST_OVER_LARGER))


def _streamed(count: int, windows: Tensor) -> dict[str, Any]:
    loaded = _few_blocks("70b", count)
    spec, runtime = prepared("cvr+energy"), PruneRuntime()
    prune(loaded, windows[:8], spec, runtime)
    forward = min(_forward_seconds(loaded, windows) for _ in range(2))
    alone = _seconds(lambda: prune(loaded, windows, spec, runtime))
    modules = list(loaded.model.model.layers.cpu())
    torch.cuda.empty_cache()
    streamer = Streamer(modules, HostSource(modules, pin=True), torch.device("cuda"))
    streamed = LoadedModel(loaded.model, loaded.tokenizer, streamer, ModelSource("random"))
    copies = _seconds(lambda: _copy_all(streamer))
    copies = _seconds(lambda: _copy_all(streamer))  # the first time reserves memory that is pinned
    predicted = _predicted_peak(streamed, find_blocks(streamed, windows[:1]), spec, windows)
    torch.cuda.reset_peak_memory_stats()
    seconds = _seconds(lambda: prune(streamed, windows, spec, runtime))
    peak = torch.cuda.max_memory_allocated()
    streamer.close()
    return {
        "blocks": count,
        "forward": forward,
        "seconds": seconds,
        "computation": alone,
        "copies": copies,
        "over_the_larger": seconds / max(alone, copies),
        "peak_gib": peak / 2**30,
        "predicted_gib": predicted / 2**30,
    }


def _copy_all(streamer: Streamer) -> None:
    """Every block to the device and back."""
    for index in range(len(streamer.modules)):
        with streamer.held(index, changed=True):
            pass
    streamer.settle()


def profile(findings: Findings, samples: int = 16, seq_len: int = 2048) -> None:
    """The twenty kernels that take most time, and how often the host waited for the GPU."""
    windows = torch.randint(VOCABULARY, (samples, seq_len))
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
        kernels = [_kernel(event) for event in events[:20]]
        findings.add({"method": name, "waits": waits, "kernels": kernels}, None if kernels else "no kernel was seen")


def _kernel(event: Any) -> tuple[str, int, float]:  # noqa: ANN401 - the profiler's own
    return event.key[:80], event.count, round(event.self_device_time_total / 1e3, 2)


SHAPE = f"{BLOCKS} blocks of Llama 2 7B's shape, bfloat16"
SECTIONS: dict[str, tuple[Callable[[Findings], None], str]] = {
    "speed": (speed, f"{SHAPE}, 128 windows of 2048"),
    "agreement": (gpu_agreement.agreement, gpu_agreement.WHAT),
    "placements": (placements, "random Llama, bfloat16, beside offload=none with activations on the device"),
    "streaming": (streaming, "blocks of Llama 2 70B's shape, bfloat16, 32 windows of 2048, cvr + energy"),
    "profile": (profile, f"{SHAPE}, 16 windows of 2048: kernel, calls, ms"),
}


def main() -> None:
    """Run the sections that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu_check"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; run this on a machine with a GPU")
    problems = []
    for name in arguments.sections or SECTIONS:
        section, what = SECTIONS[name]
        findings = Findings(arguments.output / f"{name}.json", what)
        section(findings)
        problems += [f"{name}: {problem}" for problem in findings.problems]
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()

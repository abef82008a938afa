"""(c) How time grows with tokens, blocks and width, and memory with depth under offload=disk; random Llama models.

python -m benchmarks.growth
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks import measure
from benchmarks.methods import prepared
from statprune import load_model, save_model
from statprune.pruning.loop import prune
from statprune.walk.discover import find_blocks

BASE = {"tokens": 2048, "blocks": 2, "width": 512}
STEPS = {"tokens": (1, 2, 4), "blocks": (1, 2, 4), "width": (1, 2, 3)}
SHALLOW, DEEPER = 4, 8  # blocks, and how many times as many
SEQ_LEN = 256


def llama(blocks: int, width: int) -> LlamaForCausalLM:
    """A random model with a small vocabulary."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=blocks,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=SEQ_LEN,
    )
    return LlamaForCausalLM(config).eval()


def tokens(count: int) -> torch.Tensor:
    """Random windows."""
    return torch.randint(128, (count // SEQ_LEN, SEQ_LEN), generator=torch.Generator().manual_seed(0))


def main() -> None:
    """Measure the growth of time and memory, write it and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=Path, help=argparse.SUPPRESS)  # the memory measurement, in its own process
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    if arguments.depth:
        print(json.dumps(_peak(arguments.depth)))
        return
    rows = [_grown(what, factor) for what, factors in STEPS.items() for factor in factors]
    peaks = [_measured_peak(blocks) for blocks in (SHALLOW, SHALLOW * DEEPER)]
    result: dict[str, Any] = {
        "what": "growth of cvr + energy, random Llama models, float32; peak host memory with offload=disk",
        "machine": measure.machine(("statprune", "torch", "transformers", "numpy")),
        "base": BASE,
        "rows": rows,
        "offload_disk": {
            "blocks": [SHALLOW, SHALLOW * DEEPER],
            "peak_host_bytes": [peak["peak"] for peak in peaks],
            "blocks_bytes": [peak["blocks"] for peak in peaks],
            "ratio": peaks[1]["peak"] / peaks[0]["peak"],
        },
    }
    measure.write(measure.RESULTS / "growth.json", result)
    for row in rows:
        print(f"{row['what']} x{row['factor']}: {row['seconds']:.2f} s, {row['over_base']:.2f} of the base")
    print(f"offload=disk, {DEEPER} times as deep: {result['offload_disk']['ratio']:.3f} of the peak memory")


def _grown(what: str, factor: int) -> dict[str, Any]:
    def seconds(size: dict[str, int]) -> float:
        best = float("inf")
        for _ in range(3):
            model, windows = llama(size["blocks"], size["width"]), tokens(size["tokens"])
            blocks = find_blocks(model, windows)
            phases = prune(model, windows, prepared("cvr+energy"), blocks=blocks).seconds
            best = min(best, sum(phases.values()))
        return best

    grown = seconds(BASE | {what: BASE[what] * factor})
    return {"what": what, "factor": factor, "seconds": grown, "over_base": grown / seconds(BASE)}


def _measured_peak(blocks: int) -> dict[str, int]:
    """Peak of a process that prunes from disk to disk; from before it opens the model."""
    with tempfile.TemporaryDirectory() as folder:
        llama(blocks, 1024).save_pretrained(Path(folder) / "dense")
        _tokenizer().save_pretrained(Path(folder) / "dense")
        command = [sys.executable, "-m", "benchmarks.growth", "--depth", folder]
        done = subprocess.run(command, cwd=measure.ROOT, capture_output=True, text=True, check=True)
        peak: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
        return peak


def _tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))


def _peak(folder: Path) -> dict[str, int]:
    measure.reset_peak_memory()
    loaded = load_model(str(folder / "dense"), offload="disk", folder=folder / "pruned")
    assert loaded.streamer is not None
    prune(loaded, tokens(1024), prepared("cvr+energy"))
    save_model(loaded, folder / "pruned")
    size = sum(loaded.streamer.block_bytes)
    loaded.close()
    return {"peak": measure.memory("VmHWM"), "blocks": size}


if __name__ == "__main__":
    main()

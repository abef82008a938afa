"""What all benchmarks measure alike: memory, time, the plain forward, perplexity; and on which machine."""

import argparse
import ctypes
import datetime
import gc
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOT = Path(__file__).parents[1]  # from where ``python -m benchmarks.X`` finds X
RESULTS = ROOT / "benchmarks" / "results"

FORWARD_BATCH = 8  # windows that go through the plain forward together
WARM_UP_TOKENS = 32


def parser_of_a_run(description: str | None) -> argparse.ArgumentParser:
    """A parser of what both tools' scripts are given: a model, windows, and where the result goes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder that from_pretrained opens")
    parser.add_argument("tokens", type=Path, help="calibration and evaluation windows, as saved by torch.save")
    parser.add_argument("result", type=Path, help="JSON file to write")
    return parser


def parser_of_windows(description: str | None, samples: int = 24, seq_len: int = 512) -> argparse.ArgumentParser:
    """A parser of how many calibration windows there are, and how long they are."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=samples)
    parser.add_argument("--seq-len", type=int, default=seq_len)
    return parser


def memory(field: str) -> int:
    """VmRSS (resident now) or VmHWM (its peak) of this process, in bytes."""
    match = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if match is None:
        raise RuntimeError(f"/proc/self/status has no {field}; these benchmarks need Linux")
    return int(match[1]) * 1024


def reset_peak_memory() -> int:
    """Let VmHWM start again from what is resident now, freed memory given back first; returns that."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    resident = memory("VmRSS")
    if memory("VmHWM") > resident + 2**24:
        raise RuntimeError("this system does not reset VmHWM")
    return resident


def measured(work: Callable[[], object]) -> dict[str, Any]:
    """Seconds of ``work``, and bytes resident before it and at its peak."""
    before = reset_peak_memory()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    peak = memory("VmHWM")
    return {
        "seconds": seconds,
        "memory_before_bytes": before,
        "memory_peak_bytes": peak,
        "memory_above_model_bytes": peak - before,
    }


@torch.no_grad()
def warm_up(model: nn.Module, windows: Tensor) -> None:
    """Have the weights in memory (loaded, they are pages of a file that can be dropped) and the threads awake."""
    for parameter in model.parameters():
        parameter.data = parameter.clone()
    model(input_ids=windows[:1, :WARM_UP_TOKENS], use_cache=False)


def block_sparsity(model: nn.Module) -> float:
    """Fraction of zeros among the weights of all Linears in the decoder blocks, which are numbered items of a list."""
    weights = [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(part.isdigit() for part in name.split("."))
    ]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


@torch.no_grad()
def perplexity(model: "PreTrainedModel", windows: Tensor) -> float:
    """Exp of the mean over windows of the mean cross-entropy of their predicted tokens."""
    losses = []
    for window in windows:
        logits = model(input_ids=window[None], use_cache=False).logits[0, :-1].float()
        losses.append(functional.cross_entropy(logits, window[1:]))
    return float(torch.stack(losses).double().mean().exp())


@torch.no_grad()
def plain_forward_seconds(model: "PreTrainedModel", windows: Tensor) -> float:
    """Seconds of one forward of the whole model, logits included, over the windows."""
    start = time.perf_counter()
    for batch in windows.split(FORWARD_BATCH):
        model(input_ids=batch, use_cache=False)
    return time.perf_counter() - start


def copy_bandwidth(device: str = "cpu", size: int = 2**28) -> float:
    """Bytes per second that copying moves, reading and writing counted; the best of five copies of ``size`` bytes."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(6):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size / best


def synchronize(device: str) -> None:
    """Wait for a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def machine(packages: tuple[str, ...]) -> dict[str, Any]:
    """Where and when this is measured, and with which versions."""
    names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, and say where."""
    save(path, result)
    print(f"written: {path}")


def save(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Short name of the checkout's commit, marked where files differ from it that are no benchmark's results."""
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if done.returncode:
        return None
    changed = ["git", "-C", str(ROOT), "diff", "--quiet", "HEAD", "--", ".", ":(exclude)benchmarks/*.json"]
    return done.stdout.strip() + ("-dirty" if subprocess.run(changed).returncode else "")

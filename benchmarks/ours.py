"""Prune a model with statprune and record what it took, as llm_compressor.py does.

python -m benchmarks.ours MODEL_FOLDER TOKENS.pt RESULT.json --method cvr+energy --pattern 2:4 --propagation sequential
"""

import argparse
import json
import logging
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import measure
from benchmarks.methods import METHODS, prepared
from statprune import PruneRuntime, load_model
from statprune.pruning.loop import prune

PATTERNS = ("0.5", "2:4")


def main() -> None:
    """Prune, or run the plain forward, and write the result."""
    parser = measure.parser_of_a_run(__doc__)
    parser.add_argument("--method", choices=("plain_forward", *METHODS), required=True)
    parser.add_argument("--pattern", choices=PATTERNS, default="0.5")
    parser.add_argument("--propagation", choices=("pruned", "sequential", "dense"), default="pruned")
    parser.add_argument("--batch-size", type=int)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)

    tokens: dict[str, Tensor] = torch.load(arguments.tokens, weights_only=True)
    model = load_model(str(arguments.model), "float32").model
    measure.warm_up(model, tokens["calibration"])
    result: dict[str, Any]
    if arguments.method == "plain_forward":
        seconds = [measure.plain_forward_seconds(model, tokens["calibration"]) for _ in range(2)]
        result = {"seconds": min(seconds), "perplexity": measure.perplexity(model, tokens["evaluation"])}
    else:
        result = _prune(model, tokens, arguments)
    arguments.result.write_text(json.dumps(result))


def _prune(model: PreTrainedModel, tokens: dict[str, Tensor], arguments: argparse.Namespace) -> dict[str, Any]:
    spec = prepared(arguments.method, arguments.pattern, arguments.propagation)
    phases: dict[str, float] = {}

    def work() -> None:
        phases.update(prune(model, tokens["calibration"], spec, PruneRuntime(arguments.batch_size)).seconds)

    return measure.measured(work) | {
        "phases": phases,
        "sparsity": measure.block_sparsity(model),
        "perplexity": measure.perplexity(model, tokens["evaluation"]),
    }


if __name__ == "__main__":
    main()

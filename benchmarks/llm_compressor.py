"""Prune a model with llm-compressor and record what it took: seconds, memory, sparsity, perplexity.

For an environment of its own (llm_compressor_requirements.txt):

    python -m benchmarks.llm_compressor MODEL_FOLDER TOKENS.pt RESULT.json --method wanda --pattern 2:4

TOKENS.pt holds {"calibration": (samples, seq_len), "evaluation": (windows, seq_len)}, token ids saved by torch.save.
"""

import json
from typing import Any

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, default_data_collator

from benchmarks import measure

MODIFIERS = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}
MASK_STRUCTURES = {"0.5": "0:0", "2:4": "2:4"}
PACKAGES = ("torch", "transformers", "llmcompressor", "compressed-tensors", "datasets")


def calibration_loader(windows: Tensor) -> DataLoader[Any]:
    """The windows one by one, oneshot's default batch size, in their order.

    Handed to oneshot as a bare Dataset they would be sorted by length, and equal lengths do not keep their order.
    """
    dataset = Dataset.from_dict({"input_ids": windows.tolist(), "attention_mask": torch.ones_like(windows).tolist()})
    return DataLoader(dataset, batch_size=1, shuffle=False, collate_fn=default_data_collator)


def main() -> None:
    """Prune, and write the result."""
    parser = measure.parser_of_a_run(__doc__)
    parser.add_argument("--method", choices=MODIFIERS, required=True)
    parser.add_argument("--pattern", choices=MASK_STRUCTURES, required=True)
    arguments = parser.parse_args()

    tokens: dict[str, Tensor] = torch.load(arguments.tokens, weights_only=True)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    measure.warm_up(model, tokens["calibration"])
    # not "lm_head", which is pruned in spite of it: targets are matched under names with a dot appended
    modifier = MODIFIERS[arguments.method](
        sparsity=0.5, mask_structure=MASK_STRUCTURES[arguments.pattern], targets=["Linear"], ignore=["re:.*lm_head"]
    )
    loader = calibration_loader(tokens["calibration"])
    # the sequential pipeline is its default for these modifiers
    result = measure.measured(lambda: oneshot(model=model, tokenizer=tokenizer, dataset=loader, recipe=modifier))
    result |= {
        "sparsity": measure.block_sparsity(model),
        "perplexity": measure.perplexity(model, tokens["evaluation"]),
        "versions": measure.machine(PACKAGES)["versions"],
    }
    arguments.result.write_text(json.dumps(result))


if __name__ == "__main__":
    main()

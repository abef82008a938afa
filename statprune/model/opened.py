"""Whether the model that transformers opened is the one of the checkpoint, and what it said on the way."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from statprune.errors import ModelError
from statprune.model.stored import StoredCheckpoint, StoredTensor, named_few

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils.loading_report import LoadStateDictInfo

# what tools that store codes in place of weights call their tensors
QUANTIZED = re.compile(
    r"\.(qweight|qzeros|scales|zeros|g_idx|weight_packed|weight_scale(_inv)?|weight_zero_point|weight_shape|"
    r"absmax|quant_map|SCB|SCALE|weight_format|bitmask|compressed|row_offsets|codes|codebooks)$"
    r"|\.(absmax|quant_map|nested_absmax|quant_state\.\w+)$"
)
ADAPTER = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer|hada_w|ia3_l)\b")
OTHER_PARTS = ("vision_config", "audio_config", "vq_config")  # of a multimodal model's config.json
QUIET = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)  # about code, not about what is computed


@dataclass(frozen=True)
class Opened:
    """What is to be known of a model besides its weights.

    Attributes:
        ignored_tensors: how many of the checkpoint the model's class leaves out on purpose [tensors].
        ignored: the first few of their names.
        warnings: what transformers warned of while it opened model and tokenizer.
    """

    ignored_tensors: int = 0
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class LoadingInfo:
    """What transformers found out when it put the tensors in their places.

    Attributes:
        own: the model's class.
        missing: parameters that no tensor was found for.
        unexpected: tensors that the model has no place for.
        mismatched: (name, the checkpoint's shape, the model's shape).
        ignored: unexpected tensors that the class declares to be no loss.
        failed: tensors whose conversion to the model's shape went wrong, and why.
    """

    own: str = "the model"
    missing: set[str] = field(default_factory=set)
    unexpected: set[str] = field(default_factory=set)
    mismatched: set[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, info: Mapping[str, Any]) -> None:
        """Take what ``from_pretrained(output_loading_info=True)`` returns."""
        self.missing |= set(info["missing_keys"])
        self.unexpected |= set(info["unexpected_keys"])
        self.mismatched |= {(name, tuple(stored), tuple(own)) for name, stored, own in info["mismatched_keys"]}

    @property
    def tells_of_problems(self) -> bool:
        """Whether anything of it can explain why a model can't be opened."""
        return bool(self.missing or self.unexpected or self.mismatched or self.failed)


@contextmanager
def watched_loading() -> Iterator[LoadingInfo]:
    """Yield what transformers finds while the body opens a model, even if that fails.

    ``output_loading_info`` tells neither what the class ignored nor what was found before an error.
    """
    from transformers import PreTrainedModel

    found = LoadingInfo()
    name = "_adjust_missing_and_unexpected_keys"
    original = getattr(PreTrainedModel, name, None)

    def adjust(model: "PreTrainedModel", info: "LoadStateDictInfo", *arguments: object) -> object:
        before = set(info.unexpected_keys)
        result = original(model, info, *arguments)  # type: ignore[misc]  # installed only where it exists
        found.own = type(model).__name__
        found.ignored |= before - set(info.unexpected_keys)
        found.failed |= info.conversion_errors
        found.add(vars(info))
        return result

    if original is not None:
        setattr(PreTrainedModel, name, adjust)
    try:
        yield found
    finally:
        if original is not None:
            setattr(PreTrainedModel, name, original)


@contextmanager
def noticed() -> Iterator[list[str]]:
    """Yield what transformers warns of while the body runs, each sentence once; it is logged and shown as before."""
    import transformers  # noqa: F401 - it sets its logger up

    found: list[str] = []

    def notice(message: str) -> None:
        if message not in found:
            found.append(message)

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "LOAD REPORT" not in record.getMessage():  # a table of what check_loaded judges
                notice(record.getMessage().strip())

    once = getattr(logging.Logger, "warning_once", None)
    if once is not None and hasattr(once, "cache_clear"):
        once.cache_clear()  # what was said of an earlier model may be true of this one
    listener, logger = Listener(logging.WARNING), logging.getLogger("transformers")
    level, shown = logger.level, {handler: handler.level for handler in logger.handlers}
    for handler in shown:  # who has quieted transformers sees no more of it than before
        handler.setLevel(max(handler.level, level))
    logger.setLevel(min(level, logging.WARNING))
    logger.addHandler(listener)
    try:
        with warnings.catch_warnings():
            show = warnings.showwarning

            def listen(message: Warning | str, category: type[Warning], *place: object) -> None:
                if not issubclass(category, QUIET):
                    notice(str(message).strip())
                show(message, category, *place)  # type: ignore[arg-type]  # handed on as it came

            warnings.showwarning = listen  # type: ignore[assignment]
            yield found
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        for handler, own in shown.items():
            handler.setLevel(own)


def check_loaded(
    found: LoadingInfo, stored: StoredCheckpoint | None, config: Mapping[str, object], model: nn.Module | None
) -> list[str]:
    """Check that each of the model's tensors came from the checkpoint, and each of the checkpoint's went into it.

    Args:
        found: what transformers found out.
        stored: the checkpoint's tensors; None where they are not known.
        config: what config.json holds.
        model: as opened; None where that ended in an error.

    Returns:
        Names of the checkpoint's tensors that the class leaves out, that the model computes itself, or that belong to
        the other parts of a multimodal model whose language model was opened.

    Raises:
        ModelError: it is not so.
    """
    missing, mismatched = sorted(found.missing - found.failed.keys()), sorted(found.mismatched)
    left_out = {name for name in found.unexpected if _is_computed(name, model, stored)}
    left_out |= _of_other_parts(found.unexpected, config, model)
    unexpected = sorted(found.unexpected - left_out)
    problems = _coded(model, stored)
    if missing:
        lacks = f"the checkpoint lacks {len(missing)} of the model's tensors ({named_few(missing)})"
        problems.append(lacks + ", which would be filled at random")
    if mismatched:
        shapes = [f"{name} is {held} in the checkpoint and {wanted} in the model" for name, held, wanted in mismatched]
        problems.append(named_few(shapes, 2))
    if unexpected:
        loses = f"the model has no place for {len(unexpected)} of the checkpoint's tensors ({named_few(unexpected)})"
        problems.append(loses + _foreign(unexpected))
    if found.failed:
        problems.append(f"what the checkpoint has can't be made into {named_few(sorted(found.failed))}")
    if problems:
        architectures = config.get("architectures")
        named = ", ".join(map(str, architectures)) if isinstance(architectures, list) else ""
        other = f" (config.json says {named})" if named not in ("", found.own) else ""
        raise ModelError(
            f"its checkpoint does not fit {found.own}{other}: {'; '.join(problems)}; "
            "give the checkpoint and the config.json of one causal language model"
        )
    return sorted(found.ignored | left_out)


def check_own_weights(model: nn.Module) -> None:
    """Raise ModelError where a model that somebody else opened does not compute with plain weights of its own."""
    name = type(model).__name__
    adapter = sorted(own for own, _ in model.named_parameters() if ADAPTER.search(own))
    if adapter:
        raise ModelError(
            f"{name} has an adapter ({named_few(adapter)}), and only whole models can be pruned; "
            "merge it first, with PEFT's merge_and_unload()"
        )
    codes = [own for own, part in model.named_parameters() if part.ndim > 1 and not part.is_floating_point()]
    if codes:
        raise ModelError(
            f"{name} holds weights that were quantised ({named_few(codes)}), and only dense ones can be pruned; "
            "open it without quantization_config, or dequantise it first"
        )


def _is_computed(name: str, model: nn.Module | None, stored: StoredCheckpoint | None) -> bool:
    """Whether a tensor holds what the model computes itself: masks and frequencies that old versions stored."""
    if model is not None and name in dict(model.named_buffers()):  # those it would not store today
        return True
    tensor = _stored(name, stored)
    if tensor is None:
        return False
    is_mask = len(tensor.shape) == 4 and tensor.shape[:2] == (1, 1) and tensor.shape[2] == tensor.shape[3] > 1
    return is_mask or (name.endswith("masked_bias") and tensor.numel == 1)


def _of_other_parts(names: set[str], config: Mapping[str, object], model: nn.Module | None) -> set[str]:
    """Tensors of what reads images or sounds for a language model, which transformers may open without it."""
    has_parts = "text_config" in config and any(part in config for part in OTHER_PARTS)
    if model is None or not has_parts:
        return set()
    own = {name for name, _ in model.named_children()}
    return {name for name in names if name.partition(".")[0] not in own}


def _stored(name: str, stored: StoredCheckpoint | None) -> StoredTensor | None:
    """A tensor by the model's name of it, before which transformers may have put or removed the base model's prefix."""
    tensors = stored.tensors if stored is not None else {}
    found = (own for own in tensors if own == name or name.endswith(f".{own}") or own.endswith(f".{name}"))
    return tensors.get(next(found, ""))


def _coded(model: nn.Module | None, stored: StoredCheckpoint | None) -> list[str]:
    """A sentence about parameters that the checkpoint stores as integers or 8-bit floats, without what decodes them."""
    parameters = model.named_parameters() if model is not None else ()
    floats = {name for name, parameter in parameters if parameter.is_floating_point()}
    tensors = stored.tensors if stored is not None else {}
    coded = sorted(name for name, tensor in tensors.items() if name in floats and not tensor.holds_floats)
    if not coded:
        return []
    return [f"weights are stored as {tensors[coded[0]].dtype}, without what decodes them ({named_few(coded)})"]


def _foreign(unexpected: list[str]) -> str:
    if any(QUANTIZED.search(name) for name in unexpected):
        return ", which look quantised by another tool: save the model dense, in bfloat16 for instance, and give that"
    if any(ADAPTER.search(name) for name in unexpected):
        return ", which look like an adapter's: merge it with merge_and_unload() and save the model before"
    return ""

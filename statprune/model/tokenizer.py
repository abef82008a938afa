"""A model's tokenizer alone, and how many tokens its configuration names: what is known before the model is opened."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from statprune.model.converted import kept_folder
from statprune.model.loading import ModelSource
from statprune.model.location import locate_model
from statprune.system.hub import hub_access

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def open_tokenizer(source: ModelSource, converted: Path | None = None) -> "PreTrainedTokenizerBase | None":
    """A model's tokenizer; None where it can't be opened, which opening the model will say better.

    Args:
        source: names the model.
        converted: folder of GGUF models that have been converted, if there is one.
    """
    from transformers import AutoTokenizer

    location = locate_model(source.path)
    options: dict[str, str | bool | None] = {
        "revision": source.revision,
        "trust_remote_code": source.trust_remote_code,
    }
    if location.endswith(".gguf") and (folder := kept_folder(Path(location), converted)) is not None:
        location = str(folder)
    if location.endswith(".gguf"):
        options["gguf_file"], location = Path(location).name, str(Path(location).parent)
    with nullcontext(True) if Path(location).exists() else hub_access():
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(location, **options)
        except Exception:  # a broken folder ends in almost any error type
            return None
    return tokenizer


def configured_vocabulary(source: ModelSource) -> int | None:
    """How many tokens a model's configuration names; None where it names none or can't be read."""
    from transformers import AutoConfig

    location = locate_model(source.path)
    if not Path(location).is_dir():  # GGUF is read whole, and the hub is asked when the model is opened
        return None
    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=source.trust_remote_code).get_text_config()
    except Exception:  # as above
        return None
    size = getattr(config, "vocab_size", None)
    return size if type(size) is int and size > 0 else None

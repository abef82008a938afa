"""Tiny models as the loader gives them, and as folders."""

from pathlib import Path

from transformers import PreTrainedModel

from statprune.model.loading import LoadedModel, ModelSource
from tests.helpers.models import tiny_tokenizer


def loaded(model: PreTrainedModel) -> LoadedModel:
    """The model with a tokenizer, as if it had been opened whole."""
    return LoadedModel(model, tiny_tokenizer(), None, ModelSource())


def saved(model: PreTrainedModel, folder: Path) -> Path:
    """The folder, with the model and a tokenizer in it."""
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder

"""Whatever holds a model is found: a run's folder, and the dense model that a checkpoint was made from."""

import pytest
import torch

from statprune import prune, save
from statprune.errors import ModelError
from statprune.evaluation.inspection import inspect_checkpoint
from statprune.model.any_checkpoint import open_dense, saved_by_run
from statprune.model.checkpoint_tensors import open_checkpoint
from statprune.model.loading import load_model
from tests.helpers.gguf_files import TOKENS, write_gguf


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def pruned(file, tmp_path_factory):
    """The saved model of a run that pruned the file."""
    run = tmp_path_factory.mktemp("run")
    loaded = load_model(str(file))
    windows = torch.randint(len(TOKENS), (4, 16), generator=torch.Generator().manual_seed(0))
    prune(loaded, "wanda", 0.5, windows=windows)
    save(loaded, run / "model")
    (run / "result.json").write_text("{}")
    return run / "model"


def test_a_runs_folder_stands_for_the_model_that_it_saved(pruned):
    run = pruned.parent
    assert saved_by_run(str(run)) == str(pruned) and saved_by_run(str(pruned)) == str(pruned)
    assert inspect_checkpoint(str(run)).tensors == inspect_checkpoint(str(pruned)).tensors


def test_a_run_that_saved_no_model_is_named(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ModelError, match="is a run that saved no model; run it again with save_model=true"):
        inspect_checkpoint(str(tmp_path))


@pytest.mark.parametrize("cache", ["models", None])
def test_a_model_that_was_made_from_a_gguf_file_is_compared_with_it(cache, file, pruned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATPRUNE_MODEL_CACHE", raising=False)
    if cache is not None:
        monkeypatch.setenv("STATPRUNE_MODEL_CACHE", str(tmp_path / cache))
    found = inspect_checkpoint(str(pruned), str(file))
    assert found.matrices and not found.not_compared and not found.changed_elsewhere
    assert all(own.change.pruned == own.facts.zeros for own in found.matrices)
    assert list(tmp_path.glob("models/tiny*" if cache else "outputs/.cache/models/tiny*"))


def test_a_gguf_file_is_compared_with_another_as_it_is(file, tmp_path, monkeypatch):
    monkeypatch.setattr("statprune.model.any_checkpoint.open_model", None)
    names = open_checkpoint(str(file)).readers.keys()
    assert open_dense(str(file), names).readers.keys() == names

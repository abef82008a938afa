"""Hidden states that wait in files: when the files go, and what a full disk does."""

import time
from contextlib import nullcontext, suppress
from types import SimpleNamespace

import pytest
import torch

from statprune.errors import ModelError
from statprune.walk.activations import Placement, hidden_store
from statprune.walk.batches import capture
from statprune.walk.discover import find_blocks
from tests.helpers.models import tiny_llama
from tests.helpers.windows import random_windows


def assert_files(folder, count):
    """The folder comes to hold so many files; a file can go only once it is written."""
    deadline = time.monotonic() + 30
    while len(list(folder.iterdir())) != count:
        assert time.monotonic() < deadline, list(folder.iterdir())
        time.sleep(0.01)


@pytest.fixture
def batches(tmp_path):
    """Three batches of windows whose hidden states wait in ``tmp_path``."""
    model, windows = tiny_llama(), random_windows(5, 16)
    return capture(model, find_blocks(model, windows), windows, 2, hidden_store(Placement.disk, tmp_path))


def test_every_batch_waits_in_a_file_of_its_own(batches, tmp_path):
    assert len(list(tmp_path.glob("*.hidden"))) == len(batches) == 3


def test_hidden_states_in_a_file_may_change_their_precision(batches):
    wanted = batches[0].hidden.bfloat16() + 1
    batches[0].hidden = wanted
    assert batches[0].hidden.dtype == torch.bfloat16 and batches[0].hidden.shape == (2, 16, 32)
    assert torch.equal(batches[0].hidden, wanted)


def test_the_file_of_replaced_hidden_states_goes(batches, tmp_path):
    before = set(tmp_path.iterdir())
    batches[0].hidden = batches[0].hidden + 1
    assert_files(tmp_path, 3)
    assert len(before - set(tmp_path.iterdir())) == 1


def test_files_of_hidden_states_go_with_them(batches, tmp_path):
    batches.clear()
    assert_files(tmp_path, 0)


@pytest.mark.parametrize("placement", [Placement.device, Placement.host, Placement.disk])
def test_a_copy_keeps_its_hidden_states_when_others_replace_them(placement, tmp_path):
    stored = hidden_store(placement, tmp_path)(torch.ones(3))
    copied = stored.copy()
    assert torch.equal(stored.replaced(torch.zeros(3)).get(), torch.zeros(3))
    assert torch.equal(copied.get(), torch.ones(3))


@pytest.fixture
def on_full_disk(tmp_path, monkeypatch):
    """Hidden states that were stored on a full disk."""
    full = tmp_path / "full.hidden"
    full.symlink_to("/dev/full")
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.NamedTemporaryFile", lambda **_: nullcontext(SimpleNamespace(name=str(full))))
        stored = hidden_store(Placement.disk, tmp_path)(torch.ones(1, 4096))
    yield stored
    with suppress(ModelError):  # no other test is to meet the failed write
        hidden_store(Placement.disk, tmp_path)(torch.ones(1))


def test_a_disk_that_hidden_states_fill_up_ends_in_a_sentence(on_full_disk):
    with pytest.raises(ModelError, match=r"hidden states can't be written .*room on the disk"):
        on_full_disk.get()


def test_hidden_states_that_could_not_be_written_do_not_fail_later_ones(on_full_disk, tmp_path):
    with pytest.raises(ModelError):
        on_full_disk.get()
    assert torch.equal(hidden_store(Placement.disk, tmp_path)(torch.ones(3)).get(), torch.ones(3))

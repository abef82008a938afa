"""A command that is killed at any moment, given again until it ends, leaves what an undisturbed one leaves.

``make kills`` kills each kind of command fifty times; the suite of long tests a few times.
"""

import random
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.helpers.command import statprune
from tests.helpers.kills import Attempts, Command, Left, killed, kills_wanted, left, undisturbed
from tests.helpers.models import tiny_tokenizer
from tests.helpers.tasks import choices

SMALL = ("calibration.samples=16", "calibration.seq_len=64", "calibration.batch_size=4", "evaluation.seq_len=64")
SMALL += ("evaluation.max_windows=8", "tracking=disabled", "device=cpu", "checkpoint=true")
KINDS = {
    "plain": Command(("method=sparsegpt",)),
    "disk": Command(("method=cvr", "offload=disk", "activations=disk")),
    "sweep": Command(("-m", "method=wanda,ria", "sparsity.ratio=0.5,0.6")),
    "processes": Command(("method=cvr", "propagation=sequential"), processes=2),
    "zero_shot": Command(("method=wanda", "evaluation=full", "evaluation.tasks=[TASKS]")),
    "saving": Command(("method=sparsegpt", "save_model=true", "compensation=moments", "propagation=dense")),
}


@pytest.fixture(scope="module")
def deep_folder(tmp_path_factory) -> Path:
    """A tiny model of many blocks, so that kills fall between them."""
    folder = tmp_path_factory.mktemp("deep")
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tasks_folder(tmp_path_factory) -> Path:
    """A task of enough documents to be killed within."""
    folder = tmp_path_factory.mktemp("tasks") / "own"
    folder.mkdir()
    choices("own_choices", folder, documents=40)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def kind(request, deep_folder, tasks_folder, tmp_path_factory) -> tuple[Left, Attempts]:
    """What an undisturbed command of the kind leaves, and what killed ones leave."""
    base = tmp_path_factory.mktemp(request.param)
    bare = KINDS[request.param]
    given = tuple(override.replace("TASKS", str(tasks_folder)) for override in bare.overrides)
    command = Command((*given, f"model.path={deep_folder}", *SMALL), bare.processes)
    (base / "whole").mkdir()
    statprune("--version", cwd=base)  # the first command of all waits for the libraries
    seconds = undisturbed(command, base / "whole")
    attempts = killed(command, base, seconds, kills_wanted(3), random.Random(request.param))
    print(f"{request.param}: {len(attempts.kills)} kills in {len(attempts.ended)} runs of {seconds:.1f} s")
    return left(base / "whole"), attempts


@pytest.mark.long
def test_a_killed_command_ends_with_the_numbers_of_an_undisturbed_one(kind):
    whole, attempts = kind
    assert whole.numbers and all(end.numbers == whole.numbers for end in attempts.ended)


@pytest.mark.long
def test_a_killed_command_saves_the_same_weights(kind):
    whole, attempts = kind
    assert all(end.weights == whole.weights for end in attempts.ended)


@pytest.mark.long
def test_a_killed_command_leaves_no_other_files(kind):
    whole, attempts = kind
    assert [(end.files - whole.files, whole.files - end.files) for end in attempts.ended] == [
        (set(), set()) for _ in attempts.ended
    ]

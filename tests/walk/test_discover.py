"""Which models are walked block by block, and which are refused."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from statprune.core.methods import get_method
from statprune.core.patterns import NofM, Unstructured
from statprune.errors import ModelError
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneSpec
from statprune.walk.discover import find_blocks
from tests.helpers.blocks import LinearBlock
from tests.helpers.families import VOCABULARY, Model, tiny_model
from tests.helpers.windows import random_windows

WINDOWS = random_windows(4, 32)


class Future(LinearBlock):
    """Tokens see later ones."""

    def forward(self, hidden_states):
        return hidden_states + self.linear(hidden_states).mean(1, keepdim=True)


def tiny_bert():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return transformers.BertLMHeadModel(transformers.BertConfig(vocab_size=VOCABULARY, **sizes)).eval()


@pytest.fixture
def with_shared_matrix():
    """A model whose first and last blocks use one matrix."""
    model = Model(LinearBlock(), LinearBlock(), LinearBlock())
    model.layers[2].linear.weight = model.layers[0].linear.weight
    return model


def test_a_matrix_used_in_two_blocks_is_refused(with_shared_matrix):
    with pytest.raises(ModelError, match=r"several places \(layers\.0\.linear\.weight, layers\.2\.linear\.weight\)"):
        find_blocks(with_shared_matrix, WINDOWS)


def test_a_matrix_used_in_two_blocks_is_refused_while_one_of_its_names_is_left(with_shared_matrix):
    with pytest.raises(ModelError, match="several places"):
        find_blocks(with_shared_matrix, WINDOWS, exclude=[r"layers\.2"])


def test_a_matrix_used_in_two_blocks_may_be_excluded_from_both(with_shared_matrix):
    blocks = find_blocks(with_shared_matrix, WINDOWS, exclude=[r"layers\.[02]"])
    assert [len(block.matrices) for block in blocks] == [0, 1, 0]


class Side(LinearBlock):
    """Leaves its input where another block reads it."""

    def forward(self, hidden_states):
        self.hidden = hidden_states
        return hidden_states + self.linear(hidden_states)


class Reader(LinearBlock):
    """Reads what another block left."""

    def __init__(self, other):
        super().__init__()
        self.other = [other]

    def forward(self, hidden_states):
        return self.linear(hidden_states) + self.other[0].hidden


def test_blocks_that_pass_something_on_the_side_are_refused():
    side = Side()
    with pytest.raises(ModelError, match="they pass something besides hidden states"):
        find_blocks(Model(side, Reader(side)), WINDOWS)


class Keyword(Model):
    """Hands each block the input of the one before by keyword."""

    def forward(self, input_ids, use_cache=False):
        first = hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, before=first)
            first = hidden
        return SimpleNamespace(logits=hidden)


class Adding(LinearBlock):
    """Adds a keyword argument."""

    def forward(self, hidden_states, before):
        return self.linear(hidden_states) + before


def test_blocks_that_pass_something_by_keyword_are_refused():
    with pytest.raises(ModelError, match="they pass something besides hidden states"):
        find_blocks(Keyword(Adding(), Adding(), Adding()), WINDOWS)


class Mixing(Model):
    """Changes hidden states between two blocks."""

    def forward(self, input_ids, use_cache=False):
        hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden = layer(hidden) * 1.5
        return SimpleNamespace(logits=hidden)


def test_a_model_that_changes_hidden_states_between_blocks_is_refused():
    with pytest.raises(ModelError, match="does not pass each decoder block's output straight to the next"):
        find_blocks(Mixing(LinearBlock(), LinearBlock()), WINDOWS)


class InPlace(LinearBlock):
    """Changes its input."""

    def forward(self, hidden_states):
        return hidden_states.add_(self.linear(hidden_states))


def test_blocks_that_change_their_input_in_place_are_refused():
    with pytest.raises(ModelError, match="or change it in place"):
        find_blocks(Model(InPlace(), InPlace()), WINDOWS)


class Inner(LinearBlock):
    """A block with a module list of its own."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(16, 16)])

    def forward(self, hidden_states):
        return self.linear(hidden_states) + self.parts[0](hidden_states)


class Repeating(Model):
    """Runs its second block twice."""

    def forward(self, input_ids, use_cache=False):
        hidden = self.embed(input_ids)
        for layer in (self.layers[0], self.layers[1], self.layers[1]):
            hidden = layer(hidden)
        return SimpleNamespace(logits=hidden)


def test_a_small_list_never_passes_for_the_blocks():
    with pytest.raises(ModelError, match=r"straight to the next \(looked at layers\)"):
        find_blocks(Repeating(LinearBlock(), Inner()), WINDOWS)


def test_a_block_that_sees_the_future_is_refused():
    with pytest.raises(ModelError, match="lets tokens see later ones"):
        find_blocks(Model(Future()), WINDOWS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_blocks_that_see_the_future_are_refused_in_every_precision(dtype):
    with pytest.raises(ModelError, match="lets tokens see later ones"):
        find_blocks(Model(Future(), Future()).to(dtype), WINDOWS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_encoder_is_refused_in_every_precision(dtype):
    with pytest.raises(ModelError, match="lets tokens see later ones"):
        find_blocks(tiny_bert().to(dtype), WINDOWS)


def test_an_encoder_is_not_pruned():
    model = tiny_bert()
    with pytest.raises(ModelError, match=r"causal|straight"):
        prune(model, WINDOWS, PruneSpec(get_method("wanda"), Unstructured(0.5)))
    assert all(torch.equal(value, tiny_bert().state_dict()[key]) for key, value in model.state_dict().items())


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ModelError, match="has no list of decoder blocks"):
        find_blocks(Model(), WINDOWS)


class Scale(nn.Module):
    """A block without a matrix."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(16))

    def forward(self, hidden):
        return hidden * self.scale


def test_blocks_without_matrices_are_refused():
    with pytest.raises(ModelError, match="nothing can be pruned"):
        find_blocks(Model(Scale(), Scale()), WINDOWS)


def test_a_model_that_another_library_offloaded_is_refused():
    model = Model(LinearBlock(), LinearBlock())
    model.layers[1].linear.weight = nn.Parameter(torch.empty(16, 16, device="meta"))
    model.layers[1].forward = lambda hidden: hidden  # as a hook that brings the weights in
    with pytest.raises(ModelError, match="keeps weights of layers on disk or offloaded"):
        find_blocks(model, WINDOWS)


def test_a_model_in_training_mode_is_refused():
    model = Model(LinearBlock(), LinearBlock()).train()
    with pytest.raises(ModelError, match=r"in training mode.*model\.eval"):
        prune(model, WINDOWS, PruneSpec(get_method("wanda"), NofM(2, 4)))


def test_a_token_without_an_embedding_is_refused():
    with pytest.raises(ModelError, match="has the token 97, but Model has embeddings for 97 tokens"):
        find_blocks(Model(LinearBlock(), LinearBlock()), WINDOWS.clone().fill_(97))


def test_python_callers_are_warned_of_what_is_skipped(caplog):
    find_blocks(tiny_model("Qwen3MoeConfig"), WINDOWS)
    assert "are left dense: mlp.gate (384 weights: router)" in caplog.text

"""A saved model, its card, and folders that are left alone."""

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from statprune import Energy, ModelError, StatpruneError, load_model, prune, save
from statprune.model.compressed import decompress_model
from statprune.runs.card_parts import SIGNATURE
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.weights import are_equal, weights_of
from tests.helpers.windows import random_windows


@pytest.fixture
def result(tiny):
    return prune(tiny, "cvr", "2:4", windows=random_windows(4, 16), compensation=Energy(rows=False), seed=7)


def test_the_saved_model_is_the_pruned_one(tiny, result, tmp_path):
    folder = save(tiny, tmp_path / "below" / "pruned", result=result)
    reloaded = AutoModelForCausalLM.from_pretrained(folder)
    assert are_equal(weights_of(reloaded), weights_of(tiny.model))
    assert AutoTokenizer.from_pretrained(folder)("a mask")["input_ids"] == tiny.tokenizer("a mask")["input_ids"]


def test_the_card_says_what_was_done(tiny, result, tmp_path):
    card = (save(tiny, tmp_path / "pruned", result=result) / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["tags"] == ["statprune", "pruned", "sparse"]
    assert SIGNATURE in card and "| method | cvr (statistic_calibration True, alpha 0.5, " in card
    assert "| compensation | energy (columns True, rows False, " in card
    assert "| sparsity | 2:4; achieved 0.50000 over all block matrices |" in card
    own = "token ids of the caller's, 4 windows of 16 tokens, seed 7; propagation pruned"
    assert f"| calibration | {own} |" in card
    assert "| coverage | 23,040 of 23,040 weights of the blocks' matrices were pruned |" in card
    assert "| made with | statprune " in card


def test_the_card_names_what_stayed_dense_the_group_and_the_allocation(tiny, tmp_path):
    result = prune(tiny, "wanda", 0.5, windows=random_windows(4, 16), allocation="owl", exclude=["down_proj"])
    card = (save(tiny, tmp_path / "pruned", result=result) / "README.md").read_text()
    assert "| left dense | mlp.down_proj (4,608 weights, excluded) |" in card and "| method | wanda |" in card
    assert "unstructured 0.5, compared by row, allocation owl (outlier_threshold 5.0, max_deviation 0.08); " in card


def test_the_cards_sparsity_is_counted_on_what_is_saved(tiny, result, tmp_path):
    tiny.model.model.layers[0].mlp.down_proj.weight.data.fill_(1)  # as training on would
    card = (save(tiny, tmp_path / "pruned", result=result) / "README.md").read_text()
    assert f"achieved {(23040 - 1536) / 2 / 23040:.5f} over all block matrices" in card


def test_a_model_without_a_result_is_not_called_pruned(tiny, tmp_path):
    card = (save(tiny, tmp_path / "copy") / "README.md").read_text()
    assert f"saved {SIGNATURE}" in card and "tags: [statprune]" in card and "| method |" not in card


def test_a_transformers_model_needs_a_tokenizer(tmp_path):
    with pytest.raises(ModelError, match="a tokenizer is needed to save the model with"):
        save(tiny_llama(), tmp_path / "model")
    folder = save(tiny_llama(), tmp_path / "model", tokenizer=tiny_tokenizer())
    assert "base model | `LlamaForCausalLM`" in (folder / "README.md").read_text()


def test_a_folder_of_ours_is_replaced(tiny, result, tmp_path):
    first = save(tiny, tmp_path / "pruned")
    (first / "model-00001-of-00002.safetensors").touch()
    save(tiny, first, result=result)
    assert [file.name for file in first.glob("*.safetensors")] == ["model.safetensors"]
    assert [file.name for file in tmp_path.iterdir()] == ["pruned"]


def test_a_compressed_model_is_the_one_that_is_saved_dense(tiny, result, tmp_path):
    dense, small = save(tiny, tmp_path / "dense", result=result), save(tiny, tmp_path / "small", compressed=True)
    decompress_model(small, tmp_path / "back")
    assert {path.name for path in small.glob("*.safetensors")} == {"compressed-00001.safetensors"}
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (dense / "model.safetensors").read_bytes()
    assert 'load_compressed("this/folder")' in (small / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "dense", "small"]
    save(tiny, small, result=result)  # a folder of ours is replaced, in whatever form it is
    assert not list(small.glob("compressed*"))


def test_blocks_that_wait_on_disk_are_compressed_afterwards(tiny, tmp_path):
    folder = save(tiny, tmp_path / "model")
    streamed = load_model(str(folder), offload="disk", folder=tmp_path / "blocks")
    with pytest.raises(StatpruneError, match="give statprune compress"):
        save(streamed, tmp_path / "blocks", compressed=True)
    streamed.close()


def test_a_model_can_be_saved_where_it_was_opened(tiny, tmp_path):
    again = load_model(str(save(tiny, tmp_path / "model")))
    result = prune(again, "wanda", "2:4", windows=random_windows(2, 16))
    save(again, tmp_path / "model", result=result)
    reloaded = load_model(str(tmp_path / "model")).model
    assert are_equal(weights_of(reloaded), weights_of(again.model))


def test_what_others_have_is_left_alone(tiny, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StatpruneError, match="holds something that statprune did not save"):
        save(tiny, tmp_path)
    with pytest.raises(StatpruneError, match=r"notes\.txt is a file; give a folder"):
        save(tiny, tmp_path / "notes.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_result_is_what_prune_returns(tiny, tmp_path):
    with pytest.raises(ModelError, match="result is what prune\\(\\) returns, and this is of the type dict"):
        save(tiny, tmp_path / "model", result={})


def test_blocks_on_disk_are_saved_where_they_wait(tiny_folder, tmp_path):
    loaded = load_model(str(tiny_folder), offload="disk", folder=tmp_path / "pruned")
    result = prune(loaded, "wanda", "2:4", windows=random_windows(2, 16))
    with pytest.raises(StatpruneError, match=r"wait on disk, in .*pruned; save it there"):
        save(loaded, tmp_path / "elsewhere", result=result)
    folder = save(loaded, tmp_path / "pruned", result=result)
    loaded.close()
    whole = load_model(str(tiny_folder))
    prune(whole, "wanda", "2:4", windows=random_windows(2, 16))
    reloaded = AutoModelForCausalLM.from_pretrained(folder)
    assert are_equal(weights_of(reloaded), weights_of(whole.model))
    assert "2:4; achieved 0.50000" in (folder / "README.md").read_text()

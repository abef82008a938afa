"""What is wrong with a call is said in one sentence, before anything is changed."""

import pytest
import torch

from statprune import (
    ChoiceError,
    Energy,
    NofM,
    SparseGPT,
    StatpruneError,
    Unstructured,
    evaluate,
    get_method,
    prune,
    statistics,
)
from tests.helpers.weights import are_equal, weights_of
from tests.helpers.windows import random_windows


def plain_function(weight, statistics):
    return weight


IDS = random_windows(2, 16)
PRUNE = [
    ({"method": "wnda"}, "the method 'wnda' is unknown; did you mean wanda?"),
    ({"method": "dense"}, "dense is no method that prunes"),
    ({"method": 3}, "a method is a name such as"),
    ({"method": SparseGPT}, "SparseGPT is a class"),
    ({"method": plain_function}, "write @statprune.score() above it"),
    ({"method": IDS}, "and this is of the type Tensor"),
    ({"pattern": 1}, "sparsity ratio 1.0 is outside [0, 1)"),
    ({"pattern": -0.1}, "sparsity ratio -0.1 is outside [0, 1)"),
    ({"pattern": float("nan")}, "sparsity ratio nan is outside [0, 1)"),
    ({"pattern": "150%"}, "sparsity ratio 1.5 is outside [0, 1)"),
    ({"pattern": "4:2"}, "N:M sparsity 4:2 needs 0 < N < M"),
    ({"pattern": "half"}, "the pattern 'half' is unknown"),
    ({"pattern": True}, "not of the type bool"),
    ({"pattern": None}, "not of the type NoneType"),
    ({"pattern": "3:7"}, "32 inputs are not divisible by M=7"),
    ({"method": SparseGPT(block_size=6), "pattern": "2:4"}, "method.block_size=6 is not divisible by M=4"),
    ({"compensation": "enrgy"}, "the compensation 'enrgy' is unknown; did you mean energy?"),
    ({"compensation": Energy}, "Energy is a class"),
    ({"compensation": 3}, "compensation is a name, an object of statprune.Compensation, or None"),
    ({"refinement": "better"}, "the refinement 'better' is unknown"),
    ({"allocation": "olw"}, "the allocation 'olw' is unknown; did you mean owl?"),
    ({"allocation": "owl", "pattern": "2:4"}, "only unstructured sparsity can be allocated"),
    ({"propagation": "forwards"}, "propagation='forwards' is unknown"),
    ({"exclude": "mlp"}, "exclude is one text; give a list"),
    ({"exclude": ["("]}, "exclude has '(', which is no regular expression"),
    ({"exclude": ["elsewhere"]}, "elsewhere is found in no layer's name"),
    ({"batch_size": 0}, "batch_size=0 is no whole number of at least 1"),
    ({"seed": "one"}, "seed='one' is no whole number"),
    ({"windows": IDS.float()}, "the windows hold torch.float32 values"),
    ({"windows": IDS > 0}, "the windows hold torch.bool values"),
    ({"windows": IDS[0]}, "the windows have the shape (16,)"),
    ({"windows": IDS[:0]}, "the windows have the shape (0, 16)"),
    ({"windows": IDS[:, :1]}, "the windows have 1 token each"),
    ({"windows": IDS + 97}, "embeddings for 97 tokens"),
    ({"windows": IDS - 97}, "tokens are counted from 0"),
    ({"windows": IDS.repeat(1, 5)}, "seq_len=80 of the windows is longer than the model's 64 positions"),
    ({"windows": "a text"}, "the windows are one text; give a list of texts"),
    ({"windows": [[1, 2]]}, "the windows are of the type list"),
    ({"windows": [""]}, "the texts have 0 tokens"),
    ({"tokenizer": 3, "windows": ["a text"]}, "tokenizer= is a tokenizer of transformers, not of the type int"),
]


def one_sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("arguments", "sentence"), PRUNE, ids=[sentence for _, sentence in PRUNE])
def test_prune_refuses(arguments, sentence, tiny):
    before = weights_of(tiny.model)
    with pytest.raises(StatpruneError) as error:
        prune(tiny, **({"windows": IDS} | arguments))
    assert sentence in one_sentence(error)
    assert are_equal(before, weights_of(tiny.model))


@pytest.mark.parametrize("function", [prune, evaluate, statistics])
@pytest.mark.parametrize(
    ("model", "sentence"),
    [("my/model", "open it with model = load_model('my/model') first"), (torch.nn.Linear(2, 2), "of the type Linear")],
)
def test_a_model_is_opened_first(function, model, sentence):
    with pytest.raises(StatpruneError) as error:
        function(model)
    assert sentence in one_sentence(error)


EVALUATE = [
    ({"datasets": "bundeld"}, "the source 'bundeld' is unknown; did you mean bundled?"),
    ({"datasets": 3}, "datasets is a name or a list of names"),
    ({"datasets": {"own": [1, 2]}}, "the windows of own are of the type list"),
    ({"datasets": {"own": IDS}, "seq_len": 8}, "seq_len and max_windows are for named datasets"),
    ({"datasets": {"own": IDS.float()}}, "the windows hold torch.float32 values"),
    ({"seq_len": 65}, "seq_len=65 is longer than the model's 64 positions"),
    ({"max_windows": 0}, "max_windows=0 is no whole number of at least 1"),
    ({"batch_size": 1.5}, "batch_size=1.5 is no whole number"),
    ({"tasks": "./nowhere"}, "evaluation.tasks has ./nowhere, which does not exist"),
    ({"tasks": ["bundled"], "task_options": 3}, "task_options is TaskOptions(...)"),
]


@pytest.mark.parametrize(("arguments", "sentence"), EVALUATE, ids=[sentence for _, sentence in EVALUATE])
def test_evaluate_refuses(arguments, sentence, tiny):
    with pytest.raises(StatpruneError) as error:
        evaluate(tiny, **arguments)
    assert sentence in one_sentence(error)


def test_a_model_is_no_reference_for_itself(tiny):
    with pytest.raises(StatpruneError, match="dense is the model itself, which prune\\(\\) has changed in place"):
        evaluate(tiny, dense=tiny.model)


def test_fidelity_needs_a_text(tiny, dense):
    with pytest.raises(StatpruneError, match="no datasets to compare the two models on"):
        evaluate(tiny, (), dense=dense)


@pytest.mark.parametrize(
    "function", [lambda model: evaluate(model, {"own": IDS}), lambda model: statistics(model, IDS)]
)
def test_dropout_is_switched_off_first(function, tiny):
    with pytest.raises(StatpruneError, match=r"call model\.eval\(\) first"):
        function(tiny.model.train())


STATISTICS = [
    ({"kind": "grams"}, "kind='grams' is unknown; choose one of none, moments, gram"),
    ({"kind": 2.5}, "kind=2.5 is unknown"),
    ({"blocks": [3]}, "there is no block 3; the model has blocks 0 to 2"),
    ({"blocks": 1}, "blocks=1 is no list of block numbers"),
    ({"sampled_rows": -1}, "sampled_rows=-1 is no whole number of at least 0"),
]


@pytest.mark.parametrize(("arguments", "sentence"), STATISTICS, ids=[sentence for _, sentence in STATISTICS])
def test_statistics_refuses(arguments, sentence, tiny):
    with pytest.raises(StatpruneError) as error:
        statistics(tiny, IDS, **arguments)
    assert sentence in one_sentence(error)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"alfa": 1}, "method.alfa is not a key; did you mean method.alpha?"),
        ({"alpha": "much"}, "method.alpha=much has the wrong type"),
        ({"alpha": None}, "method.alpha=None has the wrong type"),
        ({"alpha": -1.0}, "method.alpha=-1.0 is negative"),
    ],
)
def test_get_method_refuses_options(options, sentence):
    with pytest.raises(ChoiceError) as error:
        get_method("cvr", **options)
    assert sentence in one_sentence(error)


def test_get_method_takes_a_name():
    with pytest.raises(ChoiceError, match="a method is got by its name, and 3 is none"):
        get_method(3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Unstructured(1.5), "sparsity ratio 1.5 is outside [0, 1)"),
        (lambda: Unstructured("half"), "sparsity ratio 'half' is no number"),
        (lambda: Unstructured(0.5, "row"), "sparsity group 'row' is none; give Group.row or Group.matrix"),
        (lambda: NofM(4, 2), "N:M sparsity 4:2 needs 0 < N < M"),
        (lambda: NofM("2", 4), "N:M sparsity '2':4 needs whole numbers"),
    ],
)
def test_patterns_refuse_what_is_none(make, sentence):
    with pytest.raises(ValueError) as error:
        make()
    assert sentence in one_sentence(error)

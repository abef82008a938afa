"""Statistics of what matrices see, against hooks on the model's own forward."""

import pytest
import torch

from statprune import statistics
from tests.helpers.weights import are_equal, weights_of
from tests.helpers.windows import random_windows

WINDOWS = random_windows(3, 16)


def inputs_of(model, name: str) -> torch.Tensor:
    """All inputs of a linear layer in a plain forward, (tokens, in_features), float64."""
    seen = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(WINDOWS)
    hook.remove()
    return torch.cat(seen).flatten(0, -2).double()


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.o_proj", "model.layers.2.mlp.down_proj"])
def test_statistics_are_those_of_the_inputs(name, tiny):
    own, inputs = statistics(tiny, WINDOWS, kind="gram")[name], inputs_of(tiny.model, name)
    assert own.count == 48
    torch.testing.assert_close(own.mean, inputs.mean(0), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(own.variance, inputs.var(0, correction=0), rtol=1e-5, atol=1e-10)
    torch.testing.assert_close(own.norm, inputs.norm(dim=0), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(own.gram, inputs.T @ inputs, rtol=1e-4, atol=1e-7)


def test_sampled_rows_are_rows_of_the_input_and_the_same_tokens_for_all(tiny):
    seen = statistics(tiny, WINDOWS, sampled_rows=5, seed=3)
    tokens = []
    for name in ("model.layers.1.mlp.up_proj", "model.layers.2.self_attn.o_proj"):
        inputs = inputs_of(tiny.model, name)
        distances = torch.cdist(seen[name].rows.double(), inputs)
        assert distances.min(1).values.max() < 1e-5
        tokens.append(distances.argmin(1).tolist())
    assert tokens[0] == tokens[1] and len(set(tokens[0])) == 5


def test_only_the_blocks_asked_for_are_collected(tiny):
    seen, every = statistics(tiny, WINDOWS, blocks=[1]), statistics(tiny, WINDOWS)
    assert len(every) == 21 and list(seen) == [name for name in every if ".layers.1." in name]
    assert all(torch.equal(seen[name].variance, every[name].variance) for name in seen)


def test_the_model_stays_as_it_is(tiny):
    before = weights_of(tiny.model)
    statistics(tiny, WINDOWS)
    assert are_equal(before, weights_of(tiny.model))


def test_excluded_matrices_are_left_out(tiny):
    assert not [name for name in statistics(tiny, WINDOWS, exclude=["mlp"]) if "mlp" in name]


def test_a_frame_has_a_row_for_each_matrix(tiny):
    seen = statistics(tiny, WINDOWS)
    frame = seen.to_frame().set_index("matrix")
    own, row = seen["model.layers.1.mlp.down_proj"], frame.loc["model.layers.1.mlp.down_proj"]
    assert list(frame.index) == list(seen) and row.block == 1 and row.tokens == 48 and row.in_features == 48
    assert row.mean_variance == own.variance.mean() and row.mean_abs_mean == own.mean.abs().mean()
    assert row.mean_square == pytest.approx((own.variance + own.mean**2).mean().item())
    assert row.largest_norm == own.norm.max() and row.median_norm == own.norm.median()


def test_progress_is_a_line_for_each_block(tiny, capsys):
    statistics(tiny, WINDOWS, blocks=[0, 1], progress=True)
    assert capsys.readouterr().err.splitlines() == ["observing blocks: 1 of 2", "observing blocks: 2 of 2"]

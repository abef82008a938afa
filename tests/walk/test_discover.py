"""What is found in a model, what is left and why, what each expert sees, and what is refused."""

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from statprune.core.methods import get_method
from statprune.core.patterns import NofM, Unstructured
from statprune.core.statistics import StatisticsKind
from statprune.errors import ModelError
from statprune.model.loading import coverage, coverage_warning, sparsity
from statprune.pruning.loop import prune
from statprune.walk.batches import capture, observe
from statprune.walk.discover import eager_experts, find_blocks
from tests.helpers.families import VOCABULARY, Model, tiny

WINDOWS = torch.randint(3, VOCABULARY, (4, 32), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def mixture():
    return tiny("Qwen3MoeConfig")


def statistics_of(model, block_index=0, **options):
    blocks = find_blocks(model, WINDOWS)
    with torch.no_grad(), eager_experts(model):
        batches = capture(model, blocks, WINDOWS, 3)
        return blocks[block_index], observe(
            blocks[block_index], batches, StatisticsKind.GRAM, torch.arange(WINDOWS.numel()), False, **options
        )


def routed_tokens(model):
    """Token numbers that block 0's router sends to each expert, and the mixture's inputs, from the model's forward."""
    seen = {}
    mlp = model.model.layers[0].mlp

    def keep(_, args):
        seen["inputs"] = args[0].flatten(0, 1)

    handle = mlp.register_forward_pre_hook(keep)
    with torch.no_grad():
        model(WINDOWS, use_cache=False)
    handle.remove()
    chosen = (seen["inputs"] @ mlp.gate.weight.T).topk(model.config.num_experts_per_tok, dim=1).indices
    return seen["inputs"], [(chosen == expert).any(1).nonzero().flatten() for expert in range(len(mlp.gate.weight))]


def test_each_expert_has_the_statistics_of_its_own_tokens(mixture):
    inputs, routed = routed_tokens(mixture)
    _, statistics = statistics_of(mixture)
    experts = mixture.model.layers[0].mlp.experts
    for expert, tokens in enumerate(routed):
        own, rows = statistics[f"mlp.experts.gate_up_proj[{expert}]"], inputs[tokens].double()
        assert own.count == len(tokens) > 0 and not own.is_pooled
        assert torch.allclose(own.norm, rows.square().sum(0).sqrt(), rtol=1e-4)
        assert torch.allclose(own.variance, rows.var(0, correction=0), rtol=1e-3)
        gate, up = (rows.float() @ experts.gate_up_proj[expert].T).chunk(2, dim=1)
        middle = (nn.functional.silu(gate) * up).double()
        down = statistics[f"mlp.experts.down_proj[{expert}]"]
        assert down.count == len(tokens)
        assert torch.allclose(down.gram.double(), middle.T @ middle, rtol=1e-3, atol=1e-4)
    shared = statistics["self_attn.q_proj"]
    assert shared is statistics["self_attn.k_proj"] is statistics["self_attn.v_proj"]
    assert shared.count == WINDOWS.numel()


def test_an_expert_few_tokens_reach_has_its_mixtures_statistics(mixture):
    inputs, routed = routed_tokens(mixture)
    least = sorted(map(len, routed))[2]  # two experts or more have fewer
    _, statistics = statistics_of(mixture, min_expert_tokens=least)
    rows = torch.cat([inputs[tokens] for tokens in routed]).double()
    few = [expert for expert, tokens in enumerate(routed) if len(tokens) < least]
    assert few
    for expert, tokens in enumerate(routed):
        own = statistics[f"mlp.experts.gate_up_proj[{expert}]"]
        assert own.is_pooled == (expert in few)
        assert own.count == (len(rows) if expert in few else len(tokens))
    pooled = statistics[f"mlp.experts.gate_up_proj[{few[0]}]"]
    assert torch.allclose(pooled.norm, rows.square().sum(0).sqrt(), rtol=1e-4)
    assert torch.allclose(pooled.variance, rows.var(0, correction=0), rtol=1e-3)
    assert torch.allclose(pooled.gram.double(), rows.T @ rows, rtol=1e-3, atol=1e-3)


def test_experts_that_no_token_reaches_are_pruned_all_the_same(mixture):
    model = copy.deepcopy(mixture)
    with torch.no_grad():  # expert 0 of block 0 is never chosen: the router sees a constant direction
        gate = model.model.layers[0].mlp.gate.weight
        gate[1:] = gate[0]
        gate[1:] += torch.eye(*gate.shape)[1:] * 1e-3
        gate[0] = 0
        model.model.layers[0].post_attention_layernorm.weight.zero_()
        model.model.layers[0].post_attention_layernorm.weight[0] = 1
    reports = []
    prune(
        model,
        WINDOWS,
        get_method("wanda"),
        NofM(2, 4),
        on_block=lambda index, count, layers: reports.extend(layers),
    )
    unreached = [r for r in reports if r["block"] == 0 and r["pooled_statistics"]]
    assert unreached and all(r["sparsity"] == 0.5 and "experts" in r["layer"] for r in unreached)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "ria", "cvr", "sparsegpt"])
def test_a_mixture_no_token_reaches_is_pruned_by_magnitude_and_counted(method):
    class Unused(Block):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(16, 8, bias=False) for _ in range(3))

        def forward(self, hidden_states):
            if (
                hidden_states.shape[1] > 16
            ):  # the tokens find_blocks tries reach the experts, those of calibration don't
                return hidden_states
            return self.linear(hidden_states) + sum(expert(hidden_states).sum(-1, True) for expert in self.experts)

    model = Model(Unused())
    blocks, reports = find_blocks(model, WINDOWS[:, :16], exclude=["linear"]), []
    dense = [layer.read() for layer in blocks[0].layers]
    prune(
        model,
        WINDOWS,
        get_method(method),
        NofM(2, 4),
        blocks=blocks,
        on_block=lambda index, count, layers: reports.extend(layers),
    )
    assert len(reports) == 3 and all(r["calibration_tokens"] == 0 and r["sparsity"] == 0.5 for r in reports)
    assert all(r["relative_output_error"] is None for r in reports)
    if method in ("magnitude", "wanda", "sparsegpt"):  # ria and cvr weigh the weight's own rows and columns
        for layer, weight in zip(blocks[0].layers, dense, strict=True):
            assert torch.equal(layer.read() != 0, NofM(2, 4).select(weight.abs()))


def test_routers_are_left_unless_asked_for(mixture):
    model = copy.deepcopy(mixture)
    covered = coverage(find_blocks(model, WINDOWS))
    router = covered["kinds"]["mlp.gate"]
    assert router == {"prunable": 0, "pruned": 0, "left": 2 * 6 * 32, "reasons": {"router": 2 * 6 * 32}}
    assert covered["kinds"]["mlp.experts.gate_up_proj"]["prunable"] == 2 * 6 * 32 * 32
    blocks = find_blocks(model, WINDOWS, prune_routers=True)
    assert coverage(blocks)["skipped"] == 0
    prune(model, WINDOWS, get_method("wanda"), Unstructured(0.5), blocks=blocks)
    assert sparsity(blocks) == 0.5 and (model.model.layers[0].mlp.gate.weight == 0).float().mean() == 0.5


def test_excluded_matrices_stay_dense_and_lower_the_achieved_sparsity(mixture):
    model = copy.deepcopy(mixture)
    blocks = find_blocks(model, WINDOWS, exclude=[r"layers\.1\.", r"[vo]_proj$"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prune(model, WINDOWS, get_method("magnitude"), Unstructured(0.5), blocks=blocks)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    names = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj")
    assert changed == {f"model.layers.0.{name}" for name in names}
    covered = coverage(blocks)
    assert covered["kinds"]["mlp.gate"]["reasons"] == {"router": 192, "excluded": 192}
    assert coverage_warning(covered).endswith("are left dense: mlp.gate (192 weights: router)")
    assert covered["kinds"]["self_attn.v_proj"]["reasons"] == {"excluded": 1024}
    share = covered["pruned"] / (covered["prunable"] + covered["skipped"])
    assert sparsity(blocks) == pytest.approx(0.5 * share) and share < 0.5
    with pytest.raises(ModelError, match=r"model.exclude: layers\\.7 is found in no layer's name"):
        find_blocks(model, WINDOWS, exclude=[r"layers\.7"])
    with pytest.raises(ModelError, match="leaves nothing to prune"):
        find_blocks(model, WINDOWS, exclude=["layers"])


class Block(nn.Module):
    """A block with one matrix, used as ``forward`` says."""

    def __init__(self, hidden=16):
        super().__init__()
        self.linear = nn.Linear(hidden, hidden, bias=False)

    def forward(self, hidden_states, **_):
        return hidden_states + self.linear(hidden_states)


def test_matrices_of_any_layout_and_product_are_found():
    class Odd(Block):
        def __init__(self):
            super().__init__()
            self.transposed = nn.Parameter(torch.randn(16, 8) * 0.1)  # (in, out)
            self.left = nn.Parameter(torch.randn(16, 8) * 0.1)  # (out, in), multiplied from the left
            self.scale = nn.Parameter(torch.ones(1, 1, 16))
            self.kernel = nn.Parameter(torch.ones(2, 8))

        def forward(self, hidden_states):
            middle = hidden_states @ self.transposed
            back = torch.matmul(self.left, middle.transpose(1, 2)).transpose(1, 2)
            return self.linear(hidden_states) * self.scale * self.kernel.sum() + back

    model = Model(Odd(), Odd())
    (block, _) = find_blocks(model, WINDOWS)
    found = {layer.name: (layer.out_features, layer.in_features) for layer in block.layers}
    assert found == {"linear": (16, 16), "transposed": (8, 16), "left": (16, 8)}
    assert [(left.kind, left.reason) for left in block.left] == [("kernel", "no product seen")]  # a scale is a vector
    prune(model, WINDOWS, get_method("wanda"), NofM(2, 4))
    odd = model.layers[0]
    assert (odd.transposed.T.unflatten(1, (-1, 4)) == 0).sum(-1).eq(2).all()
    assert (odd.left.unflatten(1, (-1, 4)) == 0).sum(-1).eq(2).all()
    assert sparsity(find_blocks(model, WINDOWS)) == pytest.approx(0.5 * 512 / 528)


def test_all_experts_at_once_are_told_apart_and_zero_rows_are_other_experts_tokens():
    class Batched(Block):
        def __init__(self):
            super().__init__()
            self.experts = nn.Parameter(torch.randn(3, 16, 16) * 0.1)

        def forward(self, hidden_states):
            tokens = hidden_states.flatten(0, 1)
            mine = (torch.arange(len(tokens)) % 4)[None] == torch.arange(3)[:, None]  # a quarter reaches no expert
            parts = torch.bmm(tokens * mine[:, :, None], self.experts)
            return hidden_states + parts.sum(0).view_as(hidden_states) + self.linear(hidden_states)

    model = Model(Batched())
    (block,) = find_blocks(model, WINDOWS)
    assert [layer.name for layer in block.layers] == ["experts[0]", "experts[1]", "experts[2]", "linear"]
    assert all(layer.transposed for layer in block.layers[:3])
    with torch.no_grad():
        statistics = observe(block, capture(model, [block], WINDOWS, 4), StatisticsKind.MOMENTS, None, False)
        tokens = model.embed(WINDOWS).flatten(0, 1).double()
    for expert in range(3):
        own = statistics[f"experts[{expert}]"]
        assert own.count == WINDOWS.numel() // 4
        assert torch.allclose(own.norm, tokens[expert::4].square().sum(0).sqrt(), rtol=1e-5)


def test_a_matrix_whose_product_is_not_seen_is_left_and_warned_about():
    class Hidden(Block):
        def forward(self, hidden_states):
            return hidden_states + (hidden_states[..., None, :] * self.linear.weight).sum(-1)

    blocks = find_blocks(Model(Hidden(), Block()), WINDOWS)
    assert [len(block.layers) for block in blocks] == [0, 1]
    warning = coverage_warning(coverage(blocks))
    assert warning.startswith("50.0% of") and "linear (256 weights: no product seen)" in warning


def test_a_matrix_used_in_two_blocks_is_refused_until_excluded():
    model = Model(Block(), Block(), Block())
    model.layers[2].linear.weight = model.layers[0].linear.weight
    with pytest.raises(ModelError, match=r"several places \(layers\.0\.linear\.weight, layers\.2\.linear\.weight\)"):
        find_blocks(model, WINDOWS)
    with pytest.raises(ModelError, match="several places"):  # under its second name alone
        find_blocks(model, WINDOWS, exclude=[r"layers\.2"])
    blocks = find_blocks(model, WINDOWS, exclude=[r"layers\.[02]"])
    assert [len(block.layers) for block in blocks] == [0, 1, 0]


def test_blocks_that_pass_something_on_the_side_are_refused():
    class Side(Block):
        def forward(self, hidden_states):
            self.hidden = hidden_states
            return hidden_states + self.linear(hidden_states)

    class Reader(Block):
        def forward(self, hidden_states):
            return self.linear(hidden_states) + self.other[0].hidden

    reader, side = Reader(), Side()
    reader.other = [side]
    with pytest.raises(ModelError, match="they pass something besides hidden states"):
        find_blocks(Model(side, reader), WINDOWS)

    class Mixing(Model):
        def forward(self, input_ids, use_cache=False):
            hidden = self.embed(input_ids)
            for layer in self.layers:
                hidden = layer(hidden) * 1.5
            return SimpleNamespace(logits=hidden)

    with pytest.raises(ModelError, match="does not pass each decoder block's output straight to the next"):
        find_blocks(Mixing(Block(), Block()), WINDOWS)

    class Keyword(Model):
        def forward(self, input_ids, use_cache=False):
            first = hidden = self.embed(input_ids)
            for layer in self.layers:
                hidden = layer(hidden, before=first)
                first = hidden
            return SimpleNamespace(logits=hidden)

    class Adding(Block):
        def forward(self, hidden_states, before):
            return self.linear(hidden_states) + before

    with pytest.raises(ModelError, match="they pass something besides hidden states"):
        find_blocks(Keyword(Adding(), Adding(), Adding()), WINDOWS)


def test_blocks_that_change_their_input_in_place_are_refused():
    class InPlace(Block):
        def forward(self, hidden_states):
            return hidden_states.add_(self.linear(hidden_states))

    with pytest.raises(ModelError, match="or change it in place"):
        find_blocks(Model(InPlace(), InPlace()), WINDOWS)


def test_a_small_list_never_passes_for_the_blocks():
    class Inner(Block):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(16, 16)])

        def forward(self, hidden_states):
            return self.linear(hidden_states) + self.parts[0](hidden_states)

    class Repeating(Model):
        def forward(self, input_ids, use_cache=False):
            hidden = self.embed(input_ids)
            for layer in (self.layers[0], self.layers[1], self.layers[1]):
                hidden = layer(hidden)
            return SimpleNamespace(logits=hidden)

    with pytest.raises(ModelError, match=r"straight to the next \(looked at layers\)"):
        find_blocks(Repeating(Block(), Inner()), WINDOWS)


def test_a_stack_that_is_used_as_one_matrix_is_pruned_whole():
    class Heads(Block):
        def __init__(self):
            super().__init__()
            self.heads = nn.Parameter(torch.randn(4, 4, 16) * 0.1)

        def forward(self, hidden_states):
            return self.linear(hidden_states) + nn.functional.linear(hidden_states, self.heads.flatten(0, 1))

    model = Model(Heads())
    (block,) = find_blocks(model, WINDOWS)
    assert {layer.name: layer.shape for layer in block.layers} == {"linear": (16, 16), "heads": (16, 16)}
    prune(model, WINDOWS, get_method("wanda"), Unstructured(0.5))
    assert (model.layers[0].heads.flatten(0, 1) == 0).sum(1).eq(8).all()


@pytest.mark.parametrize("shared_in", [3, 1])
def test_inputs_shared_only_in_some_batches_are_never_counted_twice(shared_in):
    class Sometimes(Block):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(16, 16, bias=False)

        def forward(self, hidden_states):
            second = hidden_states if len(hidden_states) == shared_in else hidden_states.clone()
            return self.linear(hidden_states) + self.other(second)

    model = Model(Sometimes())
    with pytest.raises(ModelError, match=r"layers\.0\.other shares its input with other layers only at times"):
        prune(model, WINDOWS, get_method("wanda"), Unstructured(0.5), batch_size=3)
    blocks = find_blocks(model, WINDOWS, exclude=["other"])
    prune(model, WINDOWS, get_method("wanda"), Unstructured(0.5), blocks=blocks, batch_size=3)


def test_models_that_see_the_future_or_run_no_blocks_are_refused():
    class Future(Block):
        def forward(self, hidden_states):
            return hidden_states + self.linear(hidden_states).mean(1, keepdim=True)

    with pytest.raises(ModelError, match="lets tokens see later ones"):
        find_blocks(Model(Future()), WINDOWS)
    with pytest.raises(ModelError, match="has no list of decoder blocks"):
        find_blocks(Model(), WINDOWS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_models_that_see_the_future_are_refused_in_every_precision(dtype):
    class Future(Block):
        def forward(self, hidden_states):
            return hidden_states + self.linear(hidden_states).mean(1, keepdim=True)

    with pytest.raises(ModelError, match="lets tokens see later ones"):
        find_blocks(Model(Future(), Future()).to(dtype), WINDOWS)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    bert = transformers.BertLMHeadModel(transformers.BertConfig(vocab_size=VOCABULARY, **sizes)).eval().to(dtype)
    with pytest.raises(ModelError, match="lets tokens see later ones"):
        find_blocks(bert, WINDOWS)


class Routed(Block):
    """Experts in a module list; windows of one batch reach other experts than those of the next."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(4))

    def forward(self, hidden_states):
        tokens = hidden_states.flatten(0, 1)
        chosen = (torch.arange(len(tokens)) % 2) * (3 if len(hidden_states) == 1 else 1)  # 0 and 3, or 0 and 1
        output = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            output[chosen == index] = expert(tokens[chosen == index])
        return self.linear(hidden_states) + output.view_as(hidden_states)


@pytest.mark.parametrize("min_expert_tokens", [0, 32])
def test_experts_without_tokens_in_some_batches_or_at_all(min_expert_tokens):
    model, reports = Model(Routed()), []
    blocks = find_blocks(model, WINDOWS)
    prune(
        model,
        WINDOWS,
        get_method("sparsegpt"),
        NofM(2, 4),
        batch_size=3,
        min_expert_tokens=min_expert_tokens,
        on_block=lambda index, count, layers: reports.extend(layers),
    )
    seen = {r["expert"]: (r["calibration_tokens"], r["pooled_statistics"]) for r in reports}
    few = min_expert_tokens > 16
    assert seen == {
        None: (128, False),
        "experts.0": (64, False),
        "experts.1": (48, False),
        "experts.2": (0, True),
        "experts.3": (16, few),
    }
    assert sparsity(blocks) == 0.5


def test_offloaded_and_empty_models_are_refused():
    model = Model(Block(), Block())
    model.layers[1].linear.weight = nn.Parameter(torch.empty(16, 16, device="meta"))
    model.layers[1].forward = lambda hidden: hidden  # as a hook that brings the weights in
    with pytest.raises(ModelError, match="keeps weights of layers on disk or offloaded"):
        find_blocks(model, WINDOWS)

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(16))

        def forward(self, hidden):
            return hidden * self.scale

    with pytest.raises(ModelError, match="nothing can be pruned"):
        find_blocks(Model(Scale(), Scale()), WINDOWS)


def test_python_callers_are_warned_of_what_is_left(caplog, mixture):
    find_blocks(copy.deepcopy(mixture), WINDOWS)
    assert "are left dense: mlp.gate (384 weights: router)" in caplog.text


class Router(Routed):
    """A router in higher precision, of as many outputs as experts or more, beside a matrix of its size."""

    def __init__(self, outputs):
        super().__init__()
        self.mixture = nn.Module()
        self.mixture.experts, self.mixture.gate = self.experts, nn.Linear(16, outputs, bias=False)
        self.k_proj = nn.Linear(16, 4 if outputs == 4 else 8, bias=False)
        del self.experts

    def forward(self, hidden_states):
        scores = nn.functional.linear(hidden_states.float(), self.mixture.gate.weight.float())
        scores.topk(1)
        output = sum(expert(hidden_states) for expert in self.mixture.experts)
        return self.linear(hidden_states) + output + self.k_proj(hidden_states).mean(-1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("outputs", [4, 6])  # LongCat's has more outputs than there are experts
def test_routers_are_told_by_place_and_size_in_every_precision(dtype, outputs):
    model = Model(Router(outputs)).to(dtype)
    (block,) = find_blocks(model, WINDOWS)
    assert [(left.kind, left.reason) for left in block.left] == [("mixture.gate", "router")]
    blocks = find_blocks(model, WINDOWS, prune_routers=True)
    prune(model, WINDOWS, get_method("wanda"), NofM(2, 4), blocks=blocks)
    assert sparsity(blocks) == 0.5 and coverage(blocks)["skipped"] == 0
    assert (model.layers[0].mixture.gate.weight == 0).float().mean() == 0.5


def test_a_matrix_multiplied_in_groups_is_pruned_group_by_group():
    class Grouped(Block):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(24, 8) * 0.1)  # two groups of 12 outputs and 8 inputs

        def forward(self, hidden_states):
            groups = hidden_states.unflatten(-1, (2, 8)).flatten(0, 1).transpose(0, 1)
            output = torch.bmm(groups, self.weight.view(2, 12, 8).transpose(1, 2))
            return self.linear(hidden_states) + output.mean((0, 2)).view(*hidden_states.shape[:2], 1)

    model = Model(Grouped())
    (block,) = find_blocks(model, WINDOWS)
    assert [(layer.name, layer.shape) for layer in block.layers if layer.count > 1] == [
        ("weight[0]", (12, 8)),
        ("weight[1]", (12, 8)),
    ]
    dense = model.layers[0].weight.detach().clone()
    inputs = model.embed(WINDOWS).detach().flatten(0, 1)
    prune(model, WINDOWS, get_method("wanda"), NofM(2, 4))
    for group in range(2):
        norm = inputs[:, 8 * group : 8 * group + 8].double().norm(dim=0).float()
        part = slice(12 * group, 12 * group + 12)
        keep = NofM(2, 4).select(dense[part].abs() * norm)
        assert torch.equal(model.layers[0].weight[part], dense[part] * keep)


def test_callers_from_python_in_the_wrong_mode_or_with_wrong_values():
    model, other = Model(Block(), Block()), Model(Block(), Block())
    with torch.inference_mode():
        prune(model, WINDOWS, get_method("sparsegpt"), NofM(2, 4))
    prune(other, WINDOWS, get_method("sparsegpt"), NofM(2, 4))
    assert torch.equal(model.layers[1].linear.weight, other.layers[1].linear.weight)
    with pytest.raises(ModelError, match=r"in training mode.*model\.eval"):
        prune(model.train(), WINDOWS, get_method("wanda"), NofM(2, 4))
    with pytest.raises(ModelError, match="has the token 97, but Model has embeddings for 97 tokens"):
        find_blocks(model.eval(), WINDOWS.clone().fill_(97))
    with pytest.raises(ValueError, match="batch_size=0"):
        prune(model, WINDOWS, get_method("wanda"), NofM(2, 4), batch_size=0)
    with pytest.raises(ValueError, match="propagation='origin' is unknown; choose one of pruned"):
        prune(model, WINDOWS, get_method("wanda"), NofM(2, 4), propagation="origin")

"""What bench measures: interleaved rounds, outputs that are compared, prompts, and decoding as ``generate`` does it."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from statprune.errors import ModelError
from statprune.evaluation import speed_passes
from statprune.evaluation.speed import Candidate, SpeedRun
from statprune.evaluation.speed_passes import Passes, Prompts, agreement, make_prompts
from statprune.evaluation.speed_report import SpeedPlan
from statprune.model.sparse_forms import FORMS, SparseForm, convert
from tests.helpers.families import Model, tiny_model
from tests.helpers.models import tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")
IDS = torch.randint(3, 97, (4, 12), generator=torch.Generator().manual_seed(0))


def sparse_llama():
    model = tiny_llama()
    for name, parameter in model.model.layers.named_parameters():
        if name.endswith("proj.weight"):
            parameter.data[:, ::2] = 0
    return model


def candidate(model, form=None):
    conversion = convert(model, form) if form is not None else None
    return Candidate(form.name if form is not None else "dense", "model", model, 1, conversion)


def run(candidates, rounds=3, timed=Passes.timed):
    plan = SpeedPlan((1, 4), 10, 2, rounds)
    SpeedRun(plan, candidates, Prompts(IDS, "drawn"), CPU, timed).measure()
    return [own.result() for own in candidates]


def test_rounds_are_interleaved_and_begin_with_another_form_each():
    seen = []

    def timed(passes, prompts, steps):
        with_zeros = passes._model.model.layers[0].mlp.up_proj
        seen.append((type(with_zeros).__name__, len(prompts)))
        assert prompts.shape[1] == 10 and steps == 2
        return 1.0, float(len(seen))

    model = sparse_llama()
    dense, csr = run([candidate(model), candidate(model, FORMS[0])], 3, timed)
    own, other = "Linear", "SparseLinear"
    assert seen[:4] == [(own, 1), (own, 4), (other, 1), (other, 4)]  # memory, form by form
    order = [name for name, _ in seen[4:]]
    assert order == [own, other, own, other, other, own, other, own, own, other, own, other]
    assert [size for _, size in seen[4:]] == [1, 1, 4, 4] * 3
    assert dense.timings[0].decode_seconds == (5.0, 10.0, 13.0) and csr.timings[0].decode_seconds == (6.0, 9.0, 14.0)
    assert all(len(timing.prefill_seconds) == 3 for timing in csr.timings)


def test_a_form_that_computes_the_same_is_timed():
    model = sparse_llama()
    dense, csr = run([candidate(model), candidate(model, FORMS[0])], 1)
    assert dense.agreement is None and dense.problem is None
    assert csr.agreement.is_same and csr.agreement.positions == (1 + 4) * 3 and csr.agreement.top1 == 1
    assert csr.converted == 21 and [timing.batch_size for timing in csr.timings] == [1, 4]
    assert all(timing.peak_bytes is None or timing.peak_bytes >= csr.held_bytes for timing in csr.timings)


def test_a_form_that_computes_something_else_is_named_and_not_timed():
    wrong = SparseForm("wrong", "cpu", lambda weight: -weight, functional.linear, lambda weight: None)
    model = sparse_llama()
    _, other = run([candidate(model), candidate(model, wrong)], 1)
    assert other.agreement.relative > 0.1 and not other.agreement.is_same
    assert "outputs differ" in other.problem and other.timings == ()


def test_a_form_that_fails_is_told_and_the_others_go_on():
    def fail(inputs, weight, bias):
        raise RuntimeError("no kernel")

    broken = SparseForm("broken", "cpu", lambda weight: weight, fail, lambda weight: None)
    model = sparse_llama()
    dense, other = run([candidate(model), candidate(model, broken)], 1)
    assert other.problem == "RuntimeError: no kernel" and other.timings == () and len(dense.timings) == 2


def test_agreement_is_that_of_the_worst_position():
    dense = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]])
    found = torch.tensor([[3.0, 4.0, 0.5], [0.0, 2.0, 1.5]])
    own = agreement([(found, dense)], 0.2)
    assert own.positions == 2 and own.top1 == 0.5 and own.largest == 2
    assert own.relative == pytest.approx(4.25**0.5 / 2) and not own.is_same
    assert agreement([(found[:1], dense[:1])], 0.2).relative == pytest.approx(0.1)
    lost = agreement([(dense * float("nan"), dense), (dense, dense)], 0.2)
    assert not lost.is_same


@pytest.mark.parametrize("family", ["LlamaConfig", "GPT2Config", "Gemma3TextConfig", "MambaConfig"])
def test_decoding_takes_the_tokens_of_generate(family):
    model = tiny_model(family)
    model.generation_config.eos_token_id = None
    expected = model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=5, do_sample=False)[:, 12:]
    fed = []

    class Watched(Passes):
        def forward(self, ids, cache):
            fed.append(ids)
            return super().forward(ids, cache)

    prefill, decode = Watched(model, CPU).timed(IDS, 5)
    assert prefill > 0 and decode > 0
    assert torch.equal(fed[0], IDS) and torch.equal(torch.cat(fed[1:], dim=1), expected)


def test_checked_logits_are_those_of_one_pass_over_all_tokens():
    model = tiny_llama()
    found = Passes(model, CPU).checked_logits(IDS, 3)
    whole = model(IDS).logits.detach()[:, -4:].transpose(0, 1)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


def test_a_model_without_a_cache_says_what_to_do():
    with pytest.raises(ModelError, match="returns no cache, without which it can't decode; give --new-tokens 0"):
        Passes(Model(), CPU).timed(IDS, 1)
    passes = Passes(Model(), CPU)
    assert passes.logits == "all" and Passes(tiny_llama(), CPU).logits == "last"
    assert passes.timed(IDS, 0)[0] > 0


def test_prompts_are_cut_from_the_text_or_drawn(monkeypatch):
    tokenizer = tiny_tokenizer()
    own = make_prompts(tokenizer, 3, 20, 97)
    assert own.ids.shape == (3, 20) and own.source == "the bundled evaluation text"
    monkeypatch.setattr(
        speed_passes,
        "get_source",
        lambda name: SimpleNamespace(tokens=lambda *_: SimpleNamespace(ids=torch.arange(5)[None])),
    )
    assert make_prompts(tokenizer, 2, 4, 97).ids.tolist() == [[0, 1, 2, 3], [4, 0, 1, 2]]
    beyond = make_prompts(tokenizer, 2, 4, 4)
    assert beyond.source == "random token ids of seed 0, because the tokenizer has tokens beyond the model's 4"
    assert int(beyond.ids.max()) < 4 and torch.equal(beyond.ids, make_prompts(None, 2, 4, 4).ids)

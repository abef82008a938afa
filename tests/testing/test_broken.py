"""Each check finds what is wrong with a plugin, and says it in one sentence."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch

import statprune
from statprune.core.compensation import Compensation, Energy
from statprune.core.methods import Method, get_method
from statprune.core.patterns import Pattern, Unstructured
from statprune.core.refinement import Refinement
from statprune.core.score import NoOptions, Score
from statprune.core.solution import Solution
from statprune.core.statistics import StatisticsKind
from statprune.data.sources import PathUse, Source
from statprune.pruning.allocation import Allocation, Owl
from statprune.testing import (
    check_allocation,
    check_compensation,
    check_method,
    check_pattern,
    check_refinement,
    check_score,
    check_source,
)


@dataclass
class Unfrozen:
    power: float = 1.0


@dataclass(frozen=True)
class NoDefault:
    power: float


@dataclass(frozen=True)
class Unhashable:
    powers: list[float] = field(default_factory=list)


SCORES = {
    "has the shape": lambda weight, statistics, options: weight.abs().T,
    "is torch.float64, but has to be torch.float32": lambda weight, statistics, options: weight.double(),
    "holds NaN": lambda weight, statistics, options: weight * (statistics.norm * torch.nan).to(weight.dtype),
    "holds an infinity": lambda weight, statistics, options: weight.abs() / statistics.variance.to(weight.dtype),
    "changes its argument weight": lambda weight, statistics, options: weight.abs_(),
    "changes its argument statistics": lambda weight, statistics, options: weight * statistics.mean.mul_(2).to(weight),
    "is something else when it is asked for again": lambda weight, statistics, options: torch.rand_like(weight),
    "raises KeyError: 'x'": lambda weight, statistics, options: {}["x"],
    "raises RuntimeError: these statistics hold no Gram matrix": lambda weight, statistics, options: statistics.gram,
    "is no tensor but float": lambda weight, statistics, options: 1.0,
}


@pytest.mark.parametrize("sentence", SCORES)
def test_scores(sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_score(Score(SCORES[sentence]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (Unfrozen(), "Unfrozen is not frozen; write @dataclass"),
        (NoDefault(1.0), "NoDefault lack a default"),
        (Unhashable(), "Unhashable can't be hashed"),
        (NoOptions(), "the options are NoOptions, but the score takes"),
    ],
)
def test_options(options, sentence):
    cls = Unfrozen if isinstance(options, NoOptions) else type(options)
    with pytest.raises(AssertionError, match=sentence):
        check_score(Score(lambda weight, statistics, options: weight.abs(), options=cls), options)


def test_a_score_that_reads_what_it_does_not_name():
    score = Score(lambda weight, statistics, options: weight * statistics.norm.to(weight.dtype), StatisticsKind.NONE)
    with pytest.raises(AssertionError, match=r"reads more of the statistics than needs=StatisticsKind\.NONE says"):
        check_score(score)


def test_an_undecorated_score():
    with pytest.raises(AssertionError, match=r"was given function; write @statprune\.score"):
        check_score(lambda weight, statistics: weight)


@dataclass(frozen=True)
class Changed(Method):
    """Magnitude's solution, changed."""

    change: ClassVar = None

    def solve(self, weight, statistics, pattern):
        return self.change(weight, get_method("magnitude").solve(weight, statistics, pattern))


def one_more(keep):
    """The mask without its first kept weight."""
    keep = keep.clone()
    keep[tuple(keep.nonzero()[0])] = False
    return keep


SOLUTIONS = {
    "holds NaN": lambda weight, own: replace(own, weight=own.weight * torch.nan),
    "leaves weights that are not zero where the mask is False": lambda weight, own: replace(own, weight=weight + 1),
    "removes 17 of 32 weights in row 0, not 16": lambda weight, own: replace(
        own, keep=one_more(own.keep), weight=own.weight * one_more(own.keep)
    ),
    "is torch.float32, but has to be torch.bool": lambda weight, own: replace(own, keep=own.keep.float()),
    "changes its argument weight": lambda weight, own: Solution(weight.mul_(own.keep), own.keep, {}),
    "returns something else when it is called again": lambda weight, own: replace(
        own, weight=own.weight * torch.rand_like(weight)
    ),
    r"returns tuple; return statprune\.Solution": lambda weight, own: (own.weight, own.keep),
    "which is no single number": lambda weight, own: replace(own, diagnostics={"all": weight}),
}


@pytest.mark.parametrize("sentence", SOLUTIONS)
def test_methods(sentence, monkeypatch):
    monkeypatch.setattr(Changed, "change", staticmethod(SOLUTIONS[sentence]))
    with pytest.raises(AssertionError, match=sentence):
        check_method(Changed())


@dataclass(frozen=True)
class Refined(Refinement):
    """The solution, changed."""

    change: ClassVar = None

    def refine(self, dense, solution, statistics, pattern):
        return self.change(dense, solution)


@pytest.mark.parametrize("sentence", [key for key in SOLUTIONS if "weight" not in key.partition("argument")[2]])
def test_refinements(sentence, monkeypatch):
    monkeypatch.setattr(Refined, "change", staticmethod(SOLUTIONS[sentence]))
    with pytest.raises(AssertionError, match=sentence):
        check_refinement(Refined())


def test_a_refinement_that_moves_a_weight_to_another_group(monkeypatch):
    def moved(dense, own):
        keep = own.keep.roll(1, dims=1)
        return Solution(dense * keep, keep, {})

    monkeypatch.setattr(Refined, "change", staticmethod(moved))
    with pytest.raises(AssertionError, match=r"keeps \d of 4 in group \d+ of row \d+, not 2"):
        check_refinement(Refined())


@dataclass(frozen=True)
class Compensated(Compensation):
    """The pruned weight, changed."""

    change: ClassVar = None

    def apply(self, dense, pruned, keep, statistics):
        return self.change(dense, pruned, keep)


COMPENSATED = {
    "makes pruned weights other than zero": lambda dense, pruned, keep: (dense, {}),
    "changes its argument pruned": lambda dense, pruned, keep: (pruned.mul_(2), {}),
    "changes its argument keep": lambda dense, pruned, keep: (pruned, {"none": keep.logical_not_().sum()}),
    "holds NaN": lambda dense, pruned, keep: (pruned * (dense.sum(1) / pruned.sum(1))[:, None], {}),
    r"returns Tensor; return \(weight, diagnostics\)": lambda dense, pruned, keep: pruned,
    "diagnostics that are NoneType": lambda dense, pruned, keep: (pruned, None),
}


@pytest.mark.parametrize("sentence", COMPENSATED)
def test_compensations(sentence, monkeypatch):
    monkeypatch.setattr(Compensated, "change", staticmethod(COMPENSATED[sentence]))
    with pytest.raises(AssertionError, match=sentence):
        check_compensation(Compensated())


@dataclass(frozen=True)
class Misnamed(Energy):
    """Names an option that it hasn't."""

    named_options: ClassVar[tuple[str, ...]] = ("colums",)


def test_a_compensation_that_names_no_option():
    with pytest.raises(AssertionError, match=r"Misnamed\.named_options has colums, which is no option"):
        check_compensation(Misnamed())


@dataclass(frozen=True)
class Selected(Unstructured):
    """Selects otherwise."""

    change: ClassVar = None

    def select(self, score):
        return self.change(score, super().select(score))


SELECTED = {
    "keeps lower scores than it removes": lambda score, keep: ~keep,
    r"removes \d+ or .*\d+ weights, depending on the score": lambda score, keep: score > score.mean(),
    "removes 768 weights, but its target, 0.5, is 384": lambda score, keep: torch.zeros_like(keep),
    "is torch.float32, but has to be torch.bool": lambda score, keep: keep.float(),
    "changes its argument score": lambda score, keep: keep & (score.neg_() < 1),
    "in blocks of 8 columns, but 384 of the whole": lambda score, keep: (
        keep if keep.shape[1] == 32 else torch.ones_like(keep)
    ),
}


@pytest.mark.parametrize("sentence", SELECTED)
def test_patterns(sentence, monkeypatch):
    monkeypatch.setattr(Selected, "change", staticmethod(SELECTED[sentence]))
    monkeypatch.setattr(Selected, "at_ratio", lambda self, ratio: None)
    with pytest.raises(AssertionError, match=sentence):
        check_pattern(Selected())


def test_a_pattern_whose_ratio_is_rounded():
    class Rounded(Unstructured):
        def at_ratio(self, ratio):
            return Unstructured(ratio)

    with pytest.raises(AssertionError, match=r"at_ratio\(.*\) removes \d+ weights, not \d+"):
        check_pattern(dataclass(frozen=True)(Rounded)())


@pytest.mark.parametrize(("part", "sentence"), [(None, "return a pattern"), (Unstructured(0.9), "and the whole")])
def test_a_pattern_whose_parts_are_none(part, sentence, monkeypatch):
    monkeypatch.setattr(Unstructured, "partial", lambda *_: part)
    with pytest.raises(AssertionError, match=rf"Unstructured\.partial\(0\.1\) .*{sentence}"):
        check_pattern(Unstructured())


@dataclass(frozen=True)
class Spread(Allocation):
    """The same ratio everywhere, changed."""

    change: ClassVar = None

    def ratios(self, blocks, ratio, observe):
        names = [block.full_name(matrix) for block in blocks for matrix in block.matrices]
        return self.change(dict.fromkeys(names, ratio), observe)


def observed(ratios, observe):
    list(observe())
    return ratios


SPREAD = {
    "no ratio": lambda ratios, observe: dict(list(ratios.items())[1:]),
    r"1\.3, which is outside": lambda ratios, observe: {name: ratio + 1 for name, ratio in ratios.items()},
    r"weights in all, not": lambda ratios, observe: {name: ratio * 0.9 for name, ratio in ratios.items()},
    "gives a ratio to other, which no block has": lambda ratios, observe: ratios | {"other": 0.5},
    "calls observe; set needs_forward": observed,
}


@pytest.mark.parametrize("sentence", SPREAD)
def test_allocations(sentence, monkeypatch):
    monkeypatch.setattr(Spread, "change", staticmethod(SPREAD[sentence]))
    with pytest.raises(AssertionError, match=sentence):
        check_allocation(Spread())


@dataclass(frozen=True)
class NeedlessForward(Spread):
    """Observes nothing."""

    needs_forward: ClassVar[bool] = True
    change: ClassVar = staticmethod(lambda ratios, observe: ratios)


@dataclass(frozen=True)
class Taken(Owl):
    """An option that is a key of sparsity."""

    ratio: float = 0.5


@pytest.mark.parametrize(
    ("allocation", "sentence"),
    [(NeedlessForward(), "never calls observe"), (Taken(), "has the option ratio, which is a key of sparsity already")],
)
def test_other_allocations(allocation, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_allocation(allocation)


class Texts(Source):
    """Two texts, changed."""

    change = None

    def documents(self, part, path):
        return self.change([f"{part} text"])


TEXTS = {
    "is a single text; return a list of texts": lambda texts: texts[0],
    "has no text": lambda texts: [],
    "has a document that is no text": lambda texts: [1],
    "1 documents in both parts": lambda texts: ["the same " * 20],
    "1 paragraphs in both parts": lambda texts: [texts[0] + "\n\n" + "the same " * 20],
    "has other documents when it is called again": lambda texts: [f"{texts[0]} {torch.rand(1).item()}"],
}


@pytest.mark.parametrize("sentence", TEXTS)
def test_sources(sentence, monkeypatch):
    monkeypatch.setattr(Texts, "change", staticmethod(TEXTS[sentence]))
    with pytest.raises(AssertionError, match=sentence):
        check_source(Texts)


class Careless(Texts):
    """Needs a path, and does not say so."""

    change = staticmethod(lambda texts: texts)
    path_use = PathUse.required

    def problem(self, part, path):
        return None


def test_a_source_that_accepts_no_path_although_it_needs_one():
    with pytest.raises(AssertionError, match="accepts no path, which the source needs"):
        check_source(Careless, "one", "two")


@pytest.mark.parametrize(
    "check",
    [check_method, check_refinement, check_compensation, check_pattern, check_allocation, check_source, check_score],
)
def test_something_of_another_kind(check):
    other = statprune.Source if check is not check_source else Pattern
    with pytest.raises(AssertionError, match="was given"):
        check(other)

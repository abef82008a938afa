"""Everything that comes with statprune passes the checks that it offers to authors of plugins."""

import gzip
import json

import pandas as pd
import pytest

from statprune.core.compensation import COMPENSATIONS, Energy
from statprune.core.methods import METHODS, get_method
from statprune.core.moments import Moments
from statprune.core.patterns import Group, NofM, Unstructured
from statprune.core.score import OWN_SCORES, SCORES
from statprune.core.scores import Activation, CvrOptions, RiaOptions
from statprune.data.bundled import Bundled
from statprune.data.sources import get_source
from statprune.pruning.allocation import NamedRatios, Owl
from statprune.testing import (
    check_allocation,
    check_compensation,
    check_method,
    check_pattern,
    check_score,
    check_source,
)


def own_names(registry):
    """Names of the choices that come with statprune."""
    return [name for name in registry.names() if registry.origin(name).is_own]


@pytest.mark.parametrize("name", OWN_SCORES)
def test_our_scores(name):
    check_score(SCORES.get(name))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ria", RiaOptions(power=0)),
        ("cvr", CvrOptions(statistic_calibration=False)),
        ("cvr", CvrOptions(activation=Activation.norm, alpha=1)),
    ],
)
def test_our_scores_with_options(name, options):
    check_score(SCORES.get(name), options)


@pytest.mark.parametrize("name", own_names(METHODS))
def test_our_methods(name):
    check_method(get_method(name))


@pytest.mark.parametrize("name", own_names(COMPENSATIONS))
def test_our_compensations(name):
    check_compensation(COMPENSATIONS.get(name)())


@pytest.mark.parametrize(
    "compensation",
    [Energy(rows=False), Energy(rows_first=True), Energy(epsilon=0), Moments(energy_first=True), Moments(groups=1)],
)
def test_our_compensations_with_options(compensation):
    check_compensation(compensation)


@pytest.mark.parametrize(
    "pattern",
    [Unstructured(), Unstructured(0.3, Group.matrix), Unstructured(0.37, exact=True), NofM(2, 4), NofM(1, 8)],
)
def test_our_patterns(pattern):
    check_pattern(pattern)


def test_our_allocation():
    check_allocation(Owl())


def test_ratios_that_are_given():
    check_allocation(NamedRatios(((r"up", 0.613), (r"layers\.0\.", 0.2))), reaches_ratio=False)


def test_our_bundled_text():
    check_source(Bundled)


def test_our_text_file(tmp_path):
    for name in ("first", "second"):
        (tmp_path / f"{name}.txt").write_text(f"Words of the {name} file.")
    check_source(get_source("text"), str(tmp_path / "first.txt"), str(tmp_path / "second.txt"))


@pytest.mark.parametrize("name", ["wikitext2", "c4", "ptb"])
def test_copies_of_the_hubs_texts(name, tmp_path):
    source = get_source(name)
    for part, file in source.files.items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True, parents=True)
        texts = [f"words number {number} of {part}" for number in range(3)]
        if path.suffix == ".parquet":
            pd.DataFrame({source.column: texts}).to_parquet(path)
        else:
            path.write_bytes(gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in texts).encode()))
    check_source(source, str(tmp_path), str(tmp_path))

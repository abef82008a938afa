"""The rules that statprune asks of every choice, and what is our own."""

import torch
from statprune_example.allocations import LinearDepth
from statprune_example.compensations import RowNorm
from statprune_example.scores import CentredOptions, centred_wanda
from statprune_example.sources import Docstrings

import statprune
from statprune.testing import check_allocation, check_compensation, check_score, check_source


def test_the_score_keeps_the_rules():
    check_score(centred_wanda)
    check_score(centred_wanda, CentredOptions(mean_share=0.5))


def test_the_compensation_keeps_the_rules():
    check_compensation(RowNorm())


def test_the_allocation_keeps_the_rules():
    check_allocation(LinearDepth())
    check_allocation(LinearDepth(slope=-0.3), ratios=[0.5])


def test_the_source_keeps_the_rules():
    check_source(Docstrings)


def test_with_all_of_the_mean_the_score_is_wandas():
    inputs, weight = torch.randn(50, 8, dtype=torch.float64) + 1, torch.randn(4, 8, dtype=torch.float64)
    statistics = statprune.InputStatistics(8, dtype=torch.float64)
    statistics.update(inputs)
    score = centred_wanda(weight, statistics, CentredOptions(mean_share=1))
    torch.testing.assert_close(score * 50**0.5, weight.abs() * inputs.norm(dim=0))


def test_statprune_finds_the_choices():
    assert statprune.get_method("centred_wanda", mean_share=0.5).options == CentredOptions(0.5)

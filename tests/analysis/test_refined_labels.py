"""A refined run is told from one that is not, wherever runs are named."""

from statprune.analysis.collect import label_of


def test_a_label_tells_of_the_refinement():
    assert label_of("wanda", "none") == "wanda"
    assert label_of("wanda", "energy") == "wanda + energy"
    assert label_of("wanda", "none", "swaps") == "wanda + swaps"
    assert label_of("wanda", "energy", "swaps") == "wanda + swaps + energy"

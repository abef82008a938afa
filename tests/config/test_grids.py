"""Which jobs one command stands for."""

import json

import pytest

from statprune.config.grids import count_jobs, preset_grid, read_cells, swept_grids
from statprune.config.overrides import override_problems
from statprune.errors import ConfigError


def test_presets_that_are_no_grids_can_be_swept_over():
    assert swept_grids(["experiment=smoke,main", "method=wanda,cvr"]) == []


def test_a_preset_that_is_a_grid_cant_be_swept_over():
    (problem,) = swept_grids(["experiment=ablation_compensation,smoke"])
    assert "experiment=ablation_compensation,smoke lists presets that are grids themselves" in problem


def test_a_preset_brings_its_grid_without_the_overridden_keys():
    grid = preset_grid(["experiment=ablation_compensation"])
    assert set(grid) == {"method", "compensation"}
    assert set(preset_grid(["experiment=ablation_compensation", "method=wanda,sparsegpt"])) == {"compensation"}


def test_a_preset_that_is_one_run_brings_no_grid():
    assert preset_grid(["experiment=smoke"]) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '["method=wanda"]'])
def test_a_file_that_lists_no_cells_is_a_problem(text, tmp_path):
    (tmp_path / "cells.json").write_text(text)
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.file=.*cells\.json"):
        read_cells(tmp_path / "cells.json")


def cells_problems(*options):
    """What is wrong with a sweep over cells."""
    return override_problems(["hydra/sweeper=cells", *options], multirun=True)


def write_cells(folder, *cells):
    """Write a file of cells; returns the override that names it."""
    file = folder / "cells.json"
    file.write_text(json.dumps(cells))
    return f"hydra.sweeper.file={file}"


def test_a_sweep_over_cells_needs_their_file():
    assert "needs hydra.sweeper.file" in cells_problems()[0]


def test_a_file_of_cells_that_is_not_there_is_a_problem(tmp_path):
    assert "can't be read" in cells_problems(f"hydra.sweeper.file={tmp_path / 'cells.json'}")[0]


@pytest.mark.parametrize(
    "text,message", [("[]", "no list of lists"), ('{"a": 1}', "no list of lists"), ("[", "can't be read")]
)
def test_a_file_that_lists_no_cells_is_a_problem_before_the_sweep_starts(text, message, tmp_path):
    (tmp_path / "cells.json").write_text(text)
    assert message in cells_problems(f"hydra.sweeper.file={tmp_path / 'cells.json'}")[0]


def test_what_is_wrong_with_single_cells_is_a_problem_each(tmp_path):
    file = write_cells(tmp_path, ["method=wanda", "seed=1"], ["method=wnda"], ["sparsity.ratio=2"])
    problems = cells_problems(file)
    assert len(problems) == 2 and "method=wnda" in problems[0] and "sparsity.ratio=2.0" in problems[1]


def test_cells_of_jobs_that_can_start_are_no_problem(tmp_path):
    file = write_cells(tmp_path, ["method=wanda", "seed=1"], ["method=ria", "sparsity='2_4'"])
    assert cells_problems(file) == []


def test_a_file_of_cells_lists_the_overrides_of_each_job(tmp_path):
    write_cells(tmp_path, ["method=wanda", "seed=1"], [])
    assert read_cells(tmp_path / "cells.json") == [["method=wanda", "seed=1"], []]


@pytest.mark.parametrize(
    ("overrides", "jobs"),
    [
        (["method=wanda"], 1),
        (["method=wanda,cvr", "seed=0,1,2", "sparsity=2_4"], 6),
        (["method.alpha=range(0,1,0.25)", "sparsity=2_4,4_8"], 8),
        (["experiment=ablation_compensation"], 8),
        (["experiment=ablation_compensation", "method=wanda,sparsegpt"], 8),
        (["experiment=ablation_compensation", "method=wanda"], 4),
        (["hydra/sweeper=optuna", "method.alpha=interval(0,1)"], 20),
        (["hydra/sweeper=optuna", "method.alpha=interval(0,1)", "seed=0,1", "hydra.sweeper.n_trials=3"], 3),
        (["+hydra.sweeper.params.seed=0", "method=wanda,cvr"], None),
    ],
)
def test_jobs_are_counted_before_they_start(overrides, jobs):
    assert count_jobs(overrides) == jobs


def test_cells_are_counted_before_they_start(tmp_path):
    (tmp_path / "cells.json").write_text('[["method=wanda"], ["method=cvr"], []]')
    assert count_jobs(["hydra/sweeper=cells", f"hydra.sweeper.file={tmp_path / 'cells.json'}", "seed=0"]) == 3

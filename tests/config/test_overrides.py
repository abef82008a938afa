"""What is wrong with overrides is a sentence, before anything starts."""

import pytest

from statprune.config.overrides import folder_problems, override_problems


@pytest.mark.parametrize(
    ("arguments", "multirun", "message"),
    [
        (["method=null"], False, "method=null is not a choice; choose one of admm, alps, cvr, dense"),
        (
            ["~compensation"],
            False,
            "leave the run without it; choose one of columns, energy, energy_moments, least_squares, moments, none, "
            "rows, rows_first, sampled_least_squares",
        ),
        (["evaluation.seq_len=${nope}"], False, "nope"),
        (["seed=99999999999999999999"], False, "is outside [0, 2**63)"),
        (["=3"], False, "=3 has no name before ="),
        (["method=wanda,ria"], False, "method=wanda,ria lists several values; add -m"),
        (["method=wanda,foo", "sparsity.ratio=0.5,0.6"], True, "method=foo is not a choice"),
        (["method=wanda,ria", "sparsity.ratio=0.5,2"], True, "sparsity.ratio=2.0 is outside [0, 1)"),
        (["compensation.epsilon=nan"], False, "compensation.epsilon=nan is not a finite number"),
        (["compensation.epsilon=-1"], False, "compensation.epsilon=-1.0 is negative"),
        (["method.activation_power=-3"], False, "method.activation_power=-3.0 is negative"),
        (["method=sparsegpt", "method.damping=inf"], False, "method.damping=inf is not a finite number"),
        (["evaluation.datasets=[bundled,bundled]"], False, "names a dataset twice"),
    ],
)
def test_problems_of_overrides_are_sentences(arguments, multirun, message):
    problems = override_problems(arguments, multirun)
    assert len(problems) == 1 and message in problems[0] and "\n" not in problems[0]


def test_overrides_of_jobs_that_can_start_are_no_problem():
    assert override_problems(["method=wanda,ria", "sparsity.ratio=0.5,0.6", "seed=1"], multirun=True) == []


@pytest.mark.parametrize("folder", ["/proc/nope", "file", "file/below"])
def test_a_folder_that_cant_be_written_is_refused(folder, tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / folder
    (problem,) = folder_problems([f"hydra.run.dir={place}"])
    assert f"the folder {place} can't be written" in problem


def test_a_folder_that_can_be_made_is_no_problem(tmp_path):
    assert folder_problems([f"hydra.run.dir={tmp_path / 'new'}"]) == []

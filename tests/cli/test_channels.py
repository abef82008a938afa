"""``statprune channels``: a run's channels are drawn, or a sentence says why not."""

import pytest

from statprune.analysis import figures
from statprune.cli.channels import EXAMPLE
from statprune.core.patterns import NofM
from statprune.core.scores import CvrOptions
from statprune.runs.pipeline import run
from tests.helpers.command import tiny_job
from tests.helpers.verbs import verb


@pytest.fixture(scope="module")
def pruned_run(tmp_path_factory, tiny_folder):
    """The folder of a run of CVR at 2:4 with an alpha of its own."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(tiny_job(tiny_folder, "method=cvr", "method.alpha=1", "sparsity.keep=2", "sparsity.of=4"), folder)
    return folder


def test_help_shows_the_example(capsys):
    with pytest.raises(SystemExit) as ended:
        verb("channels", "--help")
    assert ended.value.code == 0 and EXAMPLE in capsys.readouterr().out


def test_a_runs_channels_are_drawn_beside_it(pruned_run, capsys):
    assert verb("channels", pruned_run, 1, "mlp.down_proj") == 0
    paths = [pruned_run / f"channels.{kind}" for kind in ("png", "pdf")]
    assert capsys.readouterr().out.split() == list(map(str, paths)) and all(path.is_file() for path in paths)


def test_a_runs_channels_are_drawn_in_another_folder(pruned_run, tmp_path, capsys):
    assert verb("channels", pruned_run, 1, "mlp.down_proj", "-o", tmp_path / "new") == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"channels.png", "channels.pdf"}


def test_channels_are_drawn_with_the_runs_own_pattern_and_options(pruned_run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "score_outliers", lambda matrix, *others: drawn.append(others) or [])
    assert verb("channels", pruned_run, 1, "mlp.down_proj", "-o", tmp_path) == 0
    assert drawn == [(tmp_path, "model, block 1, mlp.down_proj", NofM(2, 4), CvrOptions(alpha=1))]


@pytest.mark.parametrize(
    "block,name,message",
    [
        (9, "mlp.down_proj", "there is no block 9; the model has blocks 0 to 2"),
        (1, "mlp.down", "block 1 has no layer mlp.down; choose one of: self_attn.q_proj"),
    ],
)
def test_a_matrix_that_does_not_exist_is_a_sentence(block, name, message, pruned_run, tmp_path, capsys):
    assert verb("channels", pruned_run, block, name, "-o", tmp_path / "new") == 1
    error = capsys.readouterr().err
    assert f"statprune: {message}" in error and "Traceback" not in error
    assert not (tmp_path / "new").exists()


def test_a_folder_without_a_run_is_a_sentence(tmp_path, capsys):
    assert verb("channels", tmp_path / "none", 1, "mlp.down_proj") == 1
    assert "holds no finished run" in capsys.readouterr().err

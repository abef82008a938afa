"""A distribution with choices of its own, installed beside ours: in runs, sweeps, tables, Python; what goes wrong."""

import os
import re
import runpy
import sys

import pytest

from statprune.core.methods import get_method
from statprune.core.patterns import Unstructured
from statprune.pruning.loop import prune
from statprune.pruning.spec import PruneSpec
from statprune.system import registry
from tests.helpers.command import statprune
from tests.helpers.models import tiny_llama
from tests.helpers.own_table import small, write_table
from tests.helpers.plugins import EXAMPLE, fake_distribution, forget_registered, install_example
from tests.helpers.runs import records
from tests.helpers.windows import random_windows

CENTRED = ("method=centred_wanda", "compensation=row_norm")
FILE = """
import statprune
from dataclasses import dataclass

@dataclass(frozen=True)
class Power:
    power: float = 2.0

@statprune.score()
def powered(weight, statistics, options: Power):
    return weight.abs().pow(options.power)

@statprune.register("halved")
@dataclass(frozen=True)
class Halved(statprune.Compensation):
    def apply(self, dense, pruned, keep, statistics):
        return pruned / 2, {}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install_example(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def command(site, tiny_folder):
    """Run the command with the distribution, and perhaps others, on the tiny model."""

    def run(*overrides, cwd, beside=None):
        path = os.pathsep.join(str(folder) for folder in (site, beside) if folder)
        given = (*small(tiny_folder), "tracking=disabled") if overrides[0] != "tables" else ()
        return statprune(*overrides, *given, cwd=cwd, PYTHONPATH=path)

    return run


@pytest.fixture(scope="module")
def experiment(command, tmp_path_factory):
    """The folder of a run of the distribution's own experiment."""
    folder = tmp_path_factory.mktemp("run")
    done = command("experiment=example", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def sentences(done):
    """What a command that failed says, a line for each sentence."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("statprune: ")]


def test_the_experiment_of_a_plugin_uses_its_choices(experiment):
    (record,) = records(experiment).values()
    config = record.config
    assert config["method"] == {"name": "centred_wanda", "mean_share": 0.0}
    assert config["compensation"] == {"name": "row_norm", "max_scale": 1.5}
    assert config["sparsity"]["slope"] == 0.1 and record.perplexity["bundled"].pruned > 0


def test_a_record_tells_where_choices_come_from(experiment):
    (record,) = records(experiment).values()
    module = "statprune_example"
    assert record.config["origins"] == {
        key: {"distribution": "statprune-example", "version": "0.1.0", "module": f"{module}.{place}"}
        for key, place in {
            "method": "scores",
            "allocation": "allocations",
            "compensation": "compensations",
            "calibration": "sources",
        }.items()
    }


def test_a_folders_name_tells_of_the_choices(experiment):
    (name,) = records(experiment)
    assert name.startswith("model_docstrings_linear_depth0.5_centred_wanda_row_norm_s0")


def test_the_same_command_again_is_finished(command, experiment):
    assert "finished" in command("experiment=example", cwd=experiment).stderr


def test_a_run_of_another_version_is_not_taken_for_this_one(command, experiment, site):
    metadata = next(site.glob("*.dist-info")) / "METADATA"
    before = metadata.read_text()
    metadata.write_text(before.replace("Version: 0.1.0", "Version: 0.2.0"))
    try:
        (sentence,) = sentences(command("experiment=example", cwd=experiment))
    finally:
        metadata.write_text(before)
    assert "holds a run with another configuration" in sentence and "origins.method.version" in sentence


def test_options_are_swept_and_yaml_files_give_other_defaults(command, tmp_path):
    done = command("-m", "method=centred_wanda,centred_wanda_rms", "compensation=none", "seed=0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = command("-m", *CENTRED, "method.mean_share=0,0.5", cwd=tmp_path)
    assert "2 runs: 2 finished" in done.stdout
    shares = sorted(record.config["method"]["mean_share"] for record in records(tmp_path).values())
    assert shares == [0.0, 0.0, 0.5, 1.0]


@pytest.mark.long
def test_choices_stand_in_a_table(command, tmp_path, tiny_folder):
    table = write_table(
        tmp_path / "own.yaml",
        columns={"50%": ["sparsity.ratio=0.5"]},
        rows={
            "Wanda": {"overrides": ["method=wanda", "compensation=none"]},
            "Centred": {"overrides": [*CENTRED, "method.mean_share=0.5"]},
        },
        seeds=[0],
    )
    done = command("tables", str(table), "--overrides", *small(tiny_folder), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| Centred \| \**\d+\.\d+", done.stdout), done.stdout


@pytest.fixture
def installed(site, monkeypatch):
    """The distribution is there in this process; what it registers is gone afterwards."""
    monkeypatch.syspath_prepend(str(site))
    forget_registered(monkeypatch)
    registry._plugin_entries.cache_clear()
    yield
    registry._plugin_entries.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "statprune_example"]:
        del sys.modules[name]


def test_choices_are_there_in_python(installed):
    method = get_method("centred_wanda", mean_share=0.5)
    assert prune(tiny_llama(), random_windows(2, 16), PruneSpec(method, Unstructured(0.5))).sparsity == 0.5


def test_the_distributions_own_tests_pass(installed):
    tests = runpy.run_path(str(EXAMPLE / "tests" / "test_choices.py"))
    own = [test for name, test in tests.items() if name.startswith("test_")]
    for test in own:
        test()
    assert len(own) == 6


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Another distribution: a score of the same name, one of ours, an allocation and YAML files that are not there."""
    folder = tmp_path_factory.mktemp("beside")
    points = {
        "statprune.scores": {"centred_wanda": "rival:score", "ria": "rival:score", "no_score": "rival:number"},
        "statprune.allocations": {"lost": "rival_lost:Lost"},
        "statprune.methods": {"magnitude": "rival:Other"},
        "statprune.conf": {"rival": "rival_conf"},
    }
    fake_distribution(folder, "rival", points, "number = 1\n")
    return folder


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["method=centred_wanda"],
            "there are two of the score 'centred_wanda': of rival 1.0 (rival:score) and of statprune-example 0.1.0 "
            "(statprune_example.scores:centred_wanda); rename one of them, or uninstall it",
        ),
        (["method=ria"], "there are two of the score 'ria': of statprune"),
        (["method=magnitude"], "method=magnitude is two things: the score 'magnitude' of statprune"),
        (["method=no_score"], "the score 'no_score' of rival 1.0 (rival:number) can't be used: it is no score"),
        (
            ["sparsity.allocation=lost"],
            "the allocation 'lost' of rival 1.0 (rival_lost:Lost) can't be imported (ModuleNotFoundError: No module "
            "named 'rival_lost'); mend or uninstall the plugin",
        ),
    ],
)
def test_a_choice_that_can_not_be_used_is_one_sentence(overrides, sentence, command, beside, tmp_path):
    (said,) = sentences(command(*overrides, cwd=tmp_path, beside=beside))
    assert sentence in said


def test_other_choices_are_not_touched_by_broken_ones(command, beside, tmp_path):
    done = command("--cfg", "job", "method=wanda", "sparsity.allocation=linear_depth", cwd=tmp_path, beside=beside)
    assert done.returncode == 0, done.stderr
    assert "slope: " in done.stdout
    assert done.stderr.count("the configurations of rival 1.0 can't be used, its package rival_conf") == 1


def test_a_single_file_is_a_plugin(command, tmp_path):
    (tmp_path / "my_score.py").write_text(FILE)
    chosen = ("plugins=[my_score.py]", "method=powered", "compensation=halved")
    done = command("-m", *chosen, "method.power=1,2", cwd=tmp_path)
    assert "2 runs: 2 finished" in done.stdout, done.stderr
    origins = [record.config["origins"] for record in records(tmp_path).values()]
    assert origins[0]["method"]["module"] == "my_score.py" and re.fullmatch(
        "[0-9a-f]{12}", origins[0]["method"]["version"]
    )
    (tmp_path / "my_score.py").write_text(FILE.replace("pruned / 2", "pruned / 3"))
    (sentence,) = sentences(command(*chosen, cwd=tmp_path))
    assert "origins.compensation.version, origins.method.version" in sentence

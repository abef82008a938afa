"""Commands that install what an extra of ours declares."""

import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from statprune.config.hydra_choices import PLUGINS
from statprune.system.extras import install_command

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
EXTRAS = sorted({extra for extra, _ in PLUGINS.values()})


@pytest.fixture(scope="module")
def declared():
    return tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_installs_exactly_what_the_extra_declares(extra, declared):
    pip, install, *packages = shlex.split(install_command(extra))
    assert (pip, install) == ("pip", "install")
    assert {str(Requirement(package)) for package in packages} == {str(Requirement(own)) for own in declared[extra]}


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_does_not_look_for_statprune_on_a_package_index(extra):
    assert "statprune" not in install_command(extra)


def test_comparisons_are_quoted_for_the_shell():
    assert install_command("joblib") == "pip install 'hydra-joblib-launcher<1.4,>=1.2' 'joblib>=1.4'"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_command_installs_the_plugin_that_was_chosen(plugin):
    extra, distribution = PLUGINS[plugin]
    assert distribution in install_command(extra)

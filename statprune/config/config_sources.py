"""Where Hydra finds configurations besides its main folder: ours, those of plugins, and those that need no file.

Registered by ``prepare_plugins`` and not installed as plugins of Hydra's, which all programs with Hydra would get.
"""

import functools
import importlib.util
import logging
from importlib import metadata
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from statprune.errors import first_line
from statprune.system.options import PlainValues

log = logging.getLogger(__name__)

OWN = "pkg://statprune.conf"
GROUP = "statprune.conf"  # of entry points: a package of YAML files, laid out as ours
ALLOCATION_KEYS = "allocation_keys"  # a configuration of its own: the keys that allocations add to sparsity


class StatpruneSearchPath(SearchPathPlugin):
    """Behind the main folder: our configurations, those of plugins, and the choices of registries."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folders that are not there yet."""
        present = {str(element.path) for element in search_path.get_path()}
        for provider, path in (("statprune", OWN), *plugin_packages(), ("registry", f"{RegistrySource.scheme()}://")):
            if path not in present:
                search_path.append(provider, path)


@functools.cache
def plugin_packages() -> tuple[tuple[str, str], ...]:
    """The distributions that bring configurations, and where; one whose package can't be imported is warned of."""
    found = []
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.name
        try:
            spec, reason = importlib.util.find_spec(point.value), "there is none"
        except Exception as error:  # whatever the package above it does when it is imported
            spec, reason = None, f"{type(error).__name__}: {first_line(error)}"
        if spec is None:
            log.warning(
                "the configurations of %s can't be used, its package %s can't be imported (%s); mend or uninstall it",
                distribution,
                point.value,
                reason,
            )
        else:
            found.append((distribution, f"pkg://{point.value}"))
    return tuple(found)


class RegistrySource(ConfigSource):
    """Configurations of choices that have no file: their options' defaults. A plugin is imported when it is chosen."""

    @staticmethod
    def scheme() -> str:
        """What its path begins with."""
        return "statprune"

    def load_config(self, config_path: str) -> ConfigResult:
        """The configuration of one choice."""
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        values, package = _values(group, name)
        header: dict[str, str | None] = {"package": package}
        return ConfigResult(self.provider, f"{self.scheme()}://", OmegaConf.create(values), header)

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether it is the name of a group."""
        return config_path.strip("/") in _groups() or config_path == ""

    def is_config(self, config_path: str) -> bool:
        """Whether it is the path of a choice."""
        group, _, name = config_path.removesuffix(".yaml").strip("/").rpartition("/")
        if not group:
            return name == ALLOCATION_KEYS
        groups = _groups()
        return group in groups and name in groups[group].names()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Names of groups, or of the choices of one."""
        groups = _groups()
        if config_path.strip("/") in groups:
            return [] if results_filter is ObjectType.GROUP else sorted(groups[config_path.strip("/")].names())
        return [] if config_path.strip("/") or results_filter is ObjectType.CONFIG else sorted(groups)


def _groups() -> Any:  # noqa: ANN401 - imported when it is used: it imports torch, which --help does not need
    from statprune.config.choices import CHOICE_GROUPS

    return CHOICE_GROUPS


def _values(group: str, name: str) -> tuple[PlainValues, str | None]:
    from statprune.config.choices import CHOICE_GROUPS, allocation_keys

    if not group:
        return dict.fromkeys(allocation_keys()), "sparsity"
    return CHOICE_GROUPS[group].values(name), None

"""Which configuration files a command uses: Hydra's search path, as its flags and ``hydra.searchpath`` make it."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from statprune.config.config_sources import OWN, RegistrySource, StatpruneSearchPath
from statprune.config.secrets import guard_environment
from statprune.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class ConfigPlace:
    """Where configurations are looked for, and which of them is composed.

    Attributes:
        name: of the primary configuration.
        sources: (provider, path) in the order of the search.
    """

    name: str
    sources: tuple[tuple[str, str], ...]

    def search_path(self) -> ConfigSearchPath:
        """As Hydra's loader takes it."""
        path = ConfigSearchPathImpl()
        for provider, source in self.sources:
            path.append(provider, source)
        return path

    def with_folders(self, folders: Iterable[str], provider: str) -> "ConfigPlace":
        """With more places to look in, as ``hydra.searchpath`` adds them: before the last, which is for schemas."""
        added = tuple((provider, folder) for folder in folders)
        return ConfigPlace(self.name, (*self.sources[:-1], *added, self.sources[-1]))


@cache
def prepare_plugins() -> None:
    """Register our sweeper, sources and guard of secrets, and drop the stored configs that conf/hydra replaces.

    Hydra looks for plugins in folders, where an editable installation has none; and it would take the stored configs
    for schemas of ours.
    """
    guard_environment()
    plugins = Plugins.instance()  # finds the others, which store their configs; it runs their modules anew
    from hydra_plugins.statprune_cells import CellSweeper

    for plugin in (CellSweeper, RegistrySource, StatpruneSearchPath):
        plugins.register(plugin)
    stored = ConfigStore.instance().repo["hydra"]
    for group in ("launcher", "sweeper"):
        own = files("statprune.conf") / "hydra" / group
        for name in [entry.name for entry in own.iterdir()]:
            stored[group].pop(name, None)


@cache
def own_place() -> ConfigPlace:
    """Our configurations and those of installed plugins."""
    return place_of(None, None, None)


def place_of(name: str | None, path: str | None, folder: str | None) -> ConfigPlace:
    """What Hydra's flags ask for.

    Args:
        name: --config-name, or None.
        path: --config-path, or None: a folder, in place of ours, which is searched after it.
        folder: --config-dir, or None: searched after the main folder.

    Raises:
        ConfigError: there is no such folder.
    """
    prepare_plugins()
    for flag, given in (("--config-path", path), ("--config-dir", folder)):
        if given is not None and not given.startswith("pkg://") and not os.path.isdir(given):
            raise ConfigError([f"{flag} {given} is no folder; give one that holds configuration files"])
    search_path = create_config_search_path(OWN if path is None else path if "://" in path else os.path.abspath(path))
    if folder is not None:
        schemas = SearchPathQuery(provider="schema")
        search_path.prepend("command-line", f"file://{os.path.abspath(folder)}", schemas)
    sources = tuple((str(element.provider), str(element.path)) for element in search_path.get_path())
    return ConfigPlace((name or "config").removesuffix(".yaml"), sources)


def place_of_job(hydra: "DictConfig") -> ConfigPlace:
    """The place that a job was composed from, whichever process runs it.

    Args:
        hydra: Hydra's own part of its configuration.
    """
    sources = [(str(own.provider), f"{own.schema}://{own.path}") for own in hydra.runtime.config_sources]
    return ConfigPlace(str(hydra.job.config_name).removesuffix(".yaml"), tuple(sources))


class _Current:
    """The place of this process's command."""

    place: ConfigPlace | None = None


def use_place(place: ConfigPlace) -> None:
    """From now on this process composes from there."""
    _Current.place = place


def current_place() -> ConfigPlace:
    """Where this process composes from."""
    return _Current.place or own_place()


def searched_folders(values: object) -> Sequence[str]:
    """The value of ``hydra.searchpath``.

    Raises:
        ConfigError: it is no list of texts.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(isinstance(v, str) for v in values):
        raise ConfigError([f"hydra.searchpath={values} is no list; write hydra.searchpath=[file:///a/folder]"])
    for value in values:
        kind, _, folder = value.partition("://")
        if kind == "file" and not os.path.isdir(folder):
            raise ConfigError([f"hydra.searchpath has {value}, which is no folder; name one that is there"])
        if kind not in ("file", "pkg"):
            raise ConfigError([f"hydra.searchpath has {value}; write file:///a/folder or pkg://a.package"])
    return values

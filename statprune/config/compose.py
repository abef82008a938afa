"""Overrides become a configuration: the one place where Hydra's composing is called from our code."""

import copy
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

from statprune.config.quoting import quote_equals

CONFIG_MODULE, CONFIG_NAME = "statprune.conf", "config"


def prepare_plugins() -> None:
    """Register our sweeper, and drop the plugins' stored configs that conf/hydra replaces.

    Hydra looks for plugins in folders, where an editable installation has none; and it would take the stored configs
    for schemas of ours.
    """
    plugins = Plugins.instance()  # finds the others, which store their configs; it runs their modules anew
    from hydra_plugins.statprune_cells import CellSweeper

    plugins.register(CellSweeper)
    stored = ConfigStore.instance().repo["hydra"]
    for group in ("launcher", "sweeper"):
        own = files(CONFIG_MODULE) / "hydra" / group
        for name in [entry.name for entry in own.iterdir()]:
            stored[group].pop(name, None)


def quote_pattern(override: str) -> str:
    """``sparsity=2_4`` with the choice quoted: Hydra reads a bare 2_4 as the number 24; and a path with = in it."""
    if not override.startswith("sparsity="):
        return quote_equals(override)
    return re.sub(r"(?<=[=,])(\d+_\d+)(?=,|$)", r"'\1'", override)


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them.

    Raises:
        HydraException: one of them can't be read.
    """
    return [_parse_override(quote_pattern(line)) for line in overrides]


@dataclass(frozen=True)
class Composition:
    """The configuration of one job, not resolved.

    Attributes:
        config: without Hydra's own part.
        hydra: what our configurations set of Hydra's own part.
        choices: of each group.
    """

    config: DictConfig
    hydra: DictConfig
    choices: dict[str, str | None]

    def resolved(self, text: str) -> str:
        """A text with the interpolations in it replaced by the configuration's values."""
        scratch = copy.copy(self.config)
        OmegaConf.set_struct(scratch, False)
        scratch["_text"] = text
        result: str = scratch["_text"]
        return result


def compose(overrides: Sequence[str] = ()) -> Composition:
    """Compose the configuration of one job, to the same values as Hydra does.

    Hydra's own composing takes a tenth of a second, most of it for its own part and for reading the same files again.
    Here that part is left out, files are read once, and what the groups' choices compose is remembered.

    Args:
        overrides: as on the command line, without flags; the choices of groups and the values of keys. Those of Hydra's
            own groups and keys are passed over.

    Raises:
        HydraException: a choice or a key does not exist.
        OmegaConfBaseException: a value does not fit its key.
    """
    choices: list[str] = []
    values: list[Override] = []
    groups = group_names()
    for override in parse_overrides(overrides):
        if override.key_or_group in groups:
            choices.append(str(override.input_line))
        elif not override.key_or_group.startswith(("hydra.", "hydra/")):
            values.append(override)
    base: Composition = pickle.loads(_bases().pickled(tuple(choices)))
    ConfigLoaderImpl._apply_overrides_to_config(values, base.config)
    return base


def plain_values(config: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain values, resolved; without Hydra's own part."""
    if "hydra" in config:
        config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    result: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]  # strings as keys
    return result


def plain_choices(choices: Mapping[str, str]) -> dict[str, Any]:
    """What the choices of groups alone compose, as plain values that are not to be changed."""
    return _bases().plain(choices)


@cache
def default_choices() -> dict[str, str | None]:
    """The groups' choices where a command makes none."""
    return compose().choices


def group_names() -> list[str]:
    """Names of the configuration groups."""
    return _options("", is_group=True)


def choice_names(group: str) -> list[str]:
    """Names of a group's choices."""
    return _options(group, is_group=False)


@lru_cache(maxsize=64)
def _options(group: str, is_group: bool) -> list[str]:
    loader = _loader()
    return list(loader.list_groups(group) if is_group else loader.get_group_options(group))


@lru_cache(maxsize=4096)
def _parse_override(line: str) -> Override:
    return OverridesParser.create().parse_override(line)


class _Bases:
    """What choices of groups compose without the values of keys; each is composed once."""

    def __init__(self) -> None:
        self._pickled: dict[tuple[str, ...], bytes] = {}  # by overrides
        self._plain: dict[frozenset[tuple[str, str]], dict[str, Any]] = {}  # by group and choice

    def pickled(self, overrides: tuple[str, ...]) -> bytes:
        """The composition, to be copied."""
        if overrides not in self._pickled:
            base = _composed_choices(overrides)
            self._pickled[overrides] = pickle.dumps(base)
            self._plain.setdefault(_key(base.choices), plain_values(base.config))
        return self._pickled[overrides]

    def plain(self, choices: Mapping[str, str]) -> dict[str, Any]:
        """The composition as plain values."""
        key = _key(choices)
        if key not in self._plain:
            composed = _composed_choices(tuple(f"{group}='{choice}'" for group, choice in choices.items()))
            self._plain[key] = plain_values(composed.config)
        return self._plain[key]


def _key(choices: Mapping[str, str | None]) -> frozenset[tuple[str, str]]:
    return frozenset((group, choice) for group, choice in choices.items() if choice and not group.startswith("hydra/"))


@cache
def _bases() -> _Bases:
    return _Bases()


def _composed_choices(choices: tuple[str, ...]) -> Composition:
    repository = _files()
    defaults = create_defaults_list(
        repo=repository,
        config_name=CONFIG_NAME,
        overrides_list=parse_overrides(choices),
        prepend_hydra=False,
        skip_missing=False,
    )
    whole = _loader()._compose_config_from_defaults_list(defaults=defaults.defaults, repo=repository)
    hydra = whole.pop("hydra")
    OmegaConf.set_struct(whole, True)
    return Composition(whole, hydra, dict(defaults.overrides.known_choices))


class _Files(ConfigRepository):
    """Configuration files, read once; each use gets a copy, since composing changes what it is given."""

    def __init__(self, config_search_path: ConfigSearchPath):
        super().__init__(config_search_path)
        self._pickled: dict[str, bytes] = {}  # by path; faster to copy than the objects

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self._pickled:
            self._pickled[config_path] = pickle.dumps(super().load_config(config_path))
        result: ConfigResult | None = pickle.loads(self._pickled[config_path])
        return result


@cache
def _loader() -> ConfigLoaderImpl:
    """Hydra's loader of our configurations."""
    return ConfigLoaderImpl(create_config_search_path(f"pkg://{CONFIG_MODULE}"))


@cache
def _files() -> _Files:
    return _Files(_loader().get_search_path())

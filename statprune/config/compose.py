"""Overrides become a configuration: the one place where Hydra's composing is called from our code."""

import copy
import errno
import pickle
import posixpath
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from statprune.config.place import ConfigPlace, current_place, searched_folders
from statprune.config.quoting import quote_equals
from statprune.errors import ConfigError, first_line
from statprune.system.options import PlainValues


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
    parsed = [_parse_override(quote_pattern(line)) for line in overrides]
    for override in parsed:
        if override.value_type is ValueType.GLOB_CHOICE_SWEEP:  # its choices are those of the place
            override.config_loader = _configs().loader
    return parsed


@dataclass(frozen=True)
class Composition:
    """The configuration of one job, not resolved.

    Attributes:
        config: without Hydra's own part.
        hydra: what the configurations set of Hydra's own part.
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


def compose(overrides: Sequence[str] = (), place: ConfigPlace | None = None) -> Composition:
    """Compose the configuration of one job, to the same values as Hydra does.

    Hydra's own composing takes a tenth of a second, most of it for its own part and for reading the same files again.
    Here that part is left out, files are read once, and what the groups' choices compose is remembered.

    Args:
        overrides: as on the command line, without flags; the choices of groups and the values of keys. Those of Hydra's
            own groups and keys are passed over.
        place: of the configurations; None: the command's.

    Raises:
        HydraException: a choice or a key does not exist.
        OmegaConfBaseException: a value does not fit its key.
        PluginError: the plugin of a choice can't be imported.
    """
    configs = _configs(place)
    choices: list[str] = []
    values: list[Override] = []
    groups = configs.groups
    for override in parse_overrides(overrides):
        if override.key_or_group in groups:
            choices.append(str(override.input_line))
        elif not override.key_or_group.startswith(("hydra.", "hydra/")):
            values.append(override)
    base: Composition = pickle.loads(configs.pickled(tuple(choices)))
    ConfigLoaderImpl._apply_overrides_to_config(values, base.config)
    return base


def plain_values(config: DictConfig) -> PlainValues:
    """A composed configuration as plain values, resolved; without Hydra's own part."""
    if "hydra" in config:
        config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    result: PlainValues = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]  # strings as keys
    return result


def plain_choices(choices: Mapping[str, str], place: ConfigPlace | None = None) -> PlainValues:
    """What the choices of groups alone compose, as plain values that are not to be changed."""
    return _configs(place).plain(choices)


def default_choices(place: ConfigPlace | None = None) -> dict[str, str | None]:
    """The groups' choices where a command makes none."""
    return _configs(place).default_choices


def group_names() -> list[str]:
    """Names of the configuration groups."""
    return _configs().groups


def choice_names(group: str) -> list[str]:
    """Names of a group's choices."""
    return _configs().choices(group)


def hydra_groups() -> list[str]:
    """Names of Hydra's own groups: launcher, sweeper, ..."""
    return _configs().hydra_groups


def config_file(path: str) -> ConfigResult | None:
    """One configuration as its file, or its registry, has it; None where there is none.

    Args:
        path: of the file below its folder, without .yaml: experiment/mine.

    Raises:
        PluginError: it is a choice whose plugin can't be imported.
    """
    return _configs().files.load_config(path)


def set_by_file(path: str, key: str) -> object:
    """What one configuration file sets a key to, before anything is composed; None where it does not.

    Args:
        path: of the file below its folder, without .yaml: experiment/mine.
        key: full name.
    """
    loaded = config_file(path)
    return None if loaded is None else OmegaConf.select(loaded.config, key)


@lru_cache(maxsize=4096)
def _parse_override(line: str) -> Override:
    try:
        return OverridesParser.create().parse_override(line)
    except ValueError as error:  # a number of more digits than Python reads
        raise OverrideParseException(line, f"a number in it can't be read: {first_line(error)}") from error
    except RecursionError as error:
        raise OverrideParseException(line, "its brackets are too deep") from error


class _Configs:
    """The configurations of one place; each file is read once, and each composition of choices made once."""

    def __init__(self, place: ConfigPlace):
        place = _with_primary_searchpath(place)
        self._name = place.name
        self.loader = ConfigLoaderImpl(place.search_path())
        self.files = _Files(place.search_path())
        self._pickled: dict[tuple[str, ...], bytes] = {}  # by overrides
        self._plain: dict[frozenset[tuple[str, str]], PlainValues] = {}  # by group and choice
        self._choices: dict[str, list[str]] = {}  # by group

    @cached_property
    def groups(self) -> list[str]:
        """Names of the groups."""
        return list(self.loader.list_groups(""))

    @cached_property
    def hydra_groups(self) -> list[str]:
        """Names of Hydra's own groups."""
        return list(self.loader.list_groups("hydra"))

    @cached_property
    def default_choices(self) -> dict[str, str | None]:
        """The groups' choices where a command makes none."""
        base: Composition = pickle.loads(self.pickled(()))
        return base.choices

    def choices(self, group: str) -> list[str]:
        """Names of a group's choices."""
        if group not in self._choices:
            self._choices[group] = list(self.loader.get_group_options(group))
        return self._choices[group]

    def pickled(self, overrides: tuple[str, ...]) -> bytes:
        """The composition of choices, to be copied."""
        if overrides not in self._pickled:
            base = self._composed(overrides)
            self._pickled[overrides] = pickle.dumps(base)
            with suppress(OmegaConfBaseException):  # an interpolation that an override may replace
                self._plain.setdefault(_key(base.choices), plain_values(base.config))
        return self._pickled[overrides]

    def plain(self, choices: Mapping[str, str]) -> PlainValues:
        """The composition of choices as plain values."""
        key = _key(choices)
        if key not in self._plain:
            composed = self._composed(tuple(f"{group}='{choice}'" for group, choice in choices.items()))
            self._plain[key] = plain_values(composed.config)
        return self._plain[key]

    def _composed(self, choices: tuple[str, ...]) -> Composition:
        try:
            defaults = create_defaults_list(
                repo=self.files,
                config_name=self._name,
                overrides_list=parse_overrides(choices),
                prepend_hydra=False,
                skip_missing=False,
            )
        except RecursionError as error:
            made = ", ".join(choices) or self._name
            raise ConfigError([f"the defaults of {made} lead to themselves; mend the file's defaults list"]) from error
        whole = self.loader._compose_config_from_defaults_list(defaults=defaults.defaults, repo=self.files)
        hydra = whole.pop("hydra") if "hydra" in whole else OmegaConf.create()
        if not isinstance(hydra, DictConfig):
            raise ConfigError([f"a configuration file sets hydra to {hydra}; write its keys below it, one a line"])
        OmegaConf.set_struct(whole, True)
        return Composition(whole, hydra, dict(defaults.overrides.known_choices))


def _configs(place: ConfigPlace | None = None) -> _Configs:
    return _configs_of(place or current_place())


@lru_cache(maxsize=8)
def _configs_of(place: ConfigPlace) -> _Configs:
    return _Configs(place)


def _with_primary_searchpath(place: ConfigPlace) -> ConfigPlace:
    """With the places that the primary configuration adds, where the command itself added none."""
    if any(provider.startswith("hydra.searchpath") for provider, _ in place.sources):
        return place
    primary = _Files(place.search_path()).load_config(place.name)
    if primary is None:
        raise ConfigError([f"--config-name {place.name} is in none of the folders of configurations; name one"])
    folders = OmegaConf.select(primary.config, "hydra.searchpath")
    if folders is None:
        return place
    return place.with_folders(searched_folders(OmegaConf.to_container(folders)), "hydra.searchpath in main")


def _key(choices: Mapping[str, str | None]) -> frozenset[tuple[str, str]]:
    return frozenset((group, choice) for group, choice in choices.items() if choice and not group.startswith("hydra/"))


class _Files(ConfigRepository):
    """Configuration files, read once; each use gets a copy, since composing changes what it is given."""

    def __init__(self, config_search_path: ConfigSearchPath):
        super().__init__(config_search_path)
        self._pickled: dict[str, bytes] = {}  # by path; faster to copy than the objects

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self._pickled:
            self._pickled[config_path] = pickle.dumps(self._read(config_path))
        result: ConfigResult | None = pickle.loads(self._pickled[config_path])
        return result

    def _read(self, config_path: str) -> ConfigResult | None:
        try:
            result = super().load_config(config_path)
        except (YAMLError, OmegaConfBaseException, HydraException, OSError, ValueError, TypeError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                return None  # there is no file of such a name
            raise ConfigError([f"{self._named(config_path)} can't be read ({_reason(error)}); mend it"]) from error
        if result is not None and not isinstance(result.config, DictConfig):
            raise ConfigError([f"{self._named(config_path)} holds no keys with values; write key: value"])
        return result

    def _named(self, config_path: str) -> str:
        """The file as a user knows it."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        folder = source.path if source is not None else ""
        return f"the configuration file {posixpath.join(folder, config_path.removesuffix('.yaml'))}.yaml"


def _reason(error: Exception) -> str:
    """What is wrong with a file, and in which line."""
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, MarkedYAMLError) and mark is not None:
        return f"line {mark.line + 1}: {error.problem or first_line(error)}"
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else first_line(error)

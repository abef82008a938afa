"""The reference of the configuration: groups, their choices and every key, from dataclasses, docstrings and files.

``statprune --help``, ``statprune options`` and the docs' page show it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from statprune.config.compose import choice_names, compose, group_names
from statprune.config.reference_files import ChoiceFile, choice_file
from statprune.config.reference_keys import Key, key_of, leaves
from statprune.config.reference_sections import GROUPS, SCHEMAS, Section, origin_text, registry_origin, section_of
from statprune.config.sections import Settings
from statprune.errors import StatpruneError, first_line
from statprune.pruning.allocation import ALLOCATIONS, UNIFORM
from statprune.system.docstrings import attributes, description, summary
from statprune.system.options import PlainValues, defaults

BASIC = {  # Hydra's own, which have no docstring
    "hydra/launcher": "One job after another, in this process.",
    "hydra/sweeper": "Every combination of the values that are listed.",
}
HYDRA_GROUPS = tuple(BASIC)
EXPERIMENT = "experiment"
TARGET = "_target_"  # Hydra's key for the class of a launcher or sweeper: nobody sets it
GRID = "hydra.sweeper.params."  # the values of a key in a sweep
HYDRAS_KEYS = {
    "hydra.mode": ("RUN or MULTIRUN", "MULTIRUN: a sweep, which then needs no -m"),
    "hydra.sweeper.params": ("mapping or null", "values of keys to sweep over, as an experiment's grid has them"),
    "hydra.sweeper.max_batch_size": ("int or null", "jobs that the launcher gets at a time; null: all"),
}
ALLOCATION = "sparsity.allocation"
FEW = 6  # keys that a line has room for
PROBLEMS = (StatpruneError, HydraException, OmegaConfBaseException)  # of a plugin, or of a file of the user's


@dataclass(frozen=True)
class Choice:
    """One choice of a group.

    Attributes:
        name: as it is written behind the equals sign.
        summary: one line.
        source: what it does and where that is published: equations and papers.
        note: the comment of its file.
        origin: the plugin or the folder that brings it; empty where it is ours.
        based_on: another choice of the group of which it changes the keys in ``sets``; None: of none.
        brings: choices of other groups that come with it.
        sets: the keys that it has itself, or sets to other values than the group has.
        problem: why it can't be used, in a sentence, or None.
    """

    name: str
    summary: str
    source: str = ""
    note: str = ""
    origin: str = ""
    based_on: str | None = None
    brings: tuple[str, ...] = ()
    sets: tuple[Key, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Group:
    """A group of the configuration.

    Attributes:
        name: as it is written before the equals sign.
        meaning: one line.
        default: the choice where a command makes none; None: none.
        keys: those that all choices have, with the values of the default job.
        choices: by name.
    """

    name: str
    meaning: str
    default: str | None
    keys: tuple[Key, ...]
    choices: tuple[Choice, ...]

    def choice(self, name: str) -> Choice:
        """The choice called ``name``.

        Raises:
            KeyError: there is none.
        """
        return {choice.name: choice for choice in self.choices}[name]

    def own_keys(self, choice: Choice) -> list[Key]:
        """The keys that a choice has and others of the group have not; none where it only sets keys."""
        if choice.based_on or self.name == EXPERIMENT or self.name in HYDRA_GROUPS:
            return []
        common = {key.name for key in self.keys}
        return [key for key in choice.sets if key.name not in common]

    def changed_keys(self, choice: Choice) -> list[Key]:
        """The keys that a choice sets to other values than the default job has, or than the choice it is based on."""
        if choice.based_on:
            return list(choice.sets)
        common = {key.name: key.default for key in self.keys if key.name != f"{self.name}.name"}
        return [key for key in choice.sets if key.name in common and key.default != common[key.name]]


class Reference:
    """What can be configured from where this process composes."""

    @cached_property
    def group_names(self) -> list[str]:
        """Names of all groups: those of a run in the order of the default job, then presets, then Hydra's."""
        names = [name for name in group_names() if name != "hydra"]
        known = [name for name in GROUPS if name in names]
        names = [*known, *(name for name in names if name not in known), *HYDRA_GROUPS]
        if "sparsity" in names:
            names.insert(names.index("sparsity") + 1, ALLOCATION)
        return names

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All groups."""
        return tuple(self.group(name) for name in self.group_names)

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """The keys outside of groups, with the values of the default job."""
        sections = {*self._default_choices, *self.group_names}
        values = {key: value for key, value in self._default_values.items() if key not in sections}
        order = {name: place for place, name in enumerate(attributes(Settings))}
        keys = [key_of(name, value, [Settings]) for name, value in leaves(values)]
        return tuple(sorted(keys, key=lambda key: order.get(key.name, len(order))))

    def group(self, name: str) -> Group:
        """One group with its choices."""
        if name == ALLOCATION:
            return _allocation_group()
        choices = tuple(_choice(name, own) for own in choice_names(name))
        default = self._default_choices.get(name)
        own = {key.name for choice in choices if choice.name == default for key in choice.sets} - {f"{name}.name"}
        keys = [key for key in self._section_keys(name, self._default_values) if name in SCHEMAS or key.name not in own]
        first = [choice for choice in choices if choice.name == default]
        others = [choice for choice in choices if choice.name != default]
        return Group(name, GROUPS.get(name, ""), default, tuple(keys), (*first, *others))

    def section(self, group: str, choice: str) -> tuple[Key, ...]:
        """Every key of a group's section under one of its choices, with the values that a job then has.

        Where the choice is no section of a run's configuration, those keys that it sets.

        Raises:
            StatpruneError: the choice can't be used.
        """
        if group not in self._default_choices or group not in self._default_values:
            return self.group(group).choice(choice).sets
        values = OmegaConf.to_container(compose([f"{group}='{choice}'"]).config, resolve=False)
        assert isinstance(values, dict)
        return self._section_keys(group, {str(key): value for key, value in values.items()})

    def _section_keys(self, group: str, values: PlainValues) -> tuple[Key, ...]:
        if not isinstance(values.get(group), Mapping):
            return ()
        section = section_of(group, values[group])
        keys = [section.key(name, value) for name, value in leaves(values[group], group)]
        order = section.field_names
        places = {key.name: order.index(field) for key in keys if (field := key.name.rpartition(".")[2]) in order}
        return tuple(sorted(keys, key=lambda key: places.get(key.name, len(order))))

    @cached_property
    def _default_values(self) -> PlainValues:
        values = OmegaConf.to_container(compose([]).config, resolve=False)
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items()}

    @cached_property
    def _default_choices(self) -> dict[str, str | None]:
        return {"hydra/launcher": "basic", "hydra/sweeper": "basic"} | compose([]).choices


def _choice(group: str, name: str) -> Choice:
    """A choice, whatever is wrong with its plugin or its file."""
    try:
        return _described(group, name)
    except PROBLEMS as error:
        return Choice(name, "can't be used", origin=registry_origin(group, name), problem=first_line(error))


def _described(group: str, name: str) -> Choice:
    file = choice_file(group, name)
    section = section_of(group, _values_with_base(group, file))
    is_own_section = not section.name or section.name == name
    told = section.source if is_own_section else ""
    own = {key: value for key, value in file.values.items() if not key.endswith(f".{TARGET}")}
    sets = tuple(_key(section, file, key, value) for key, value in own.items())
    assigned = ", ".join(key.assignment for key in sets) if len(sets) <= FEW else f"sets {len(sets)} keys"
    return Choice(
        name=name,
        summary=summary(told) or file.comment or (BASIC[group] if name == "basic" and group in BASIC else assigned),
        source=section.source,
        note=file.comment,
        origin=file.origin or (registry_origin(group, section.name or name) if section.name else ""),
        based_on=file.based_on[0] if file.based_on else None,
        brings=file.brings,
        sets=sets,
    )


def _key(section: Section, file: ChoiceFile, name: str, value: object) -> Key:
    """A key that a choice sets, in its own section or, as experiments do, in others."""
    group = name.partition(".")[0]
    if name.startswith(GRID):
        return Key(name, "text", value, None, f"the values of {name.removeprefix(GRID)}: every combination is run")
    if name in HYDRAS_KEYS:
        kind, meaning = HYDRAS_KEYS[name]
        return Key(name, kind, value, None, file.comments.get(name, meaning))
    if section.classes or group == section.group.partition("/")[0]:
        return section.key(name, value, file.comments.get(name, ""))
    if "." not in name:
        return key_of(name, value, [Settings], file.comments.get(name, ""))
    brought = [choice.partition("=")[2] for choice in file.brings if choice.startswith(f"{group}=")]
    values = {name.rpartition(".")[2]: value} if not brought else _values_with_base(group, choice_file(group, *brought))
    return section_of(group, values).key(name, value, file.comments.get(name, ""))


def _values_with_base(group: str, file: ChoiceFile) -> PlainValues:
    """The keys of a choice and of those that it changes, without the group's name before them."""
    values: PlainValues = {}
    for base in file.based_on:
        values |= _values_with_base(group, choice_file(group, base))
    return values | {key.removeprefix(f"{group}."): value for key, value in file.values.items()}


def _allocation_group() -> Group:
    """The allocations, which are a key of ``sparsity`` and no group of files."""
    uniform = Choice(UNIFORM, "every matrix has the overall ratio")
    own = [_allocation(name) for name in ALLOCATIONS.names()]
    meaning = "how a ratio is spread over the model's matrices; a key of sparsity, with options of its own beside it"
    return Group(ALLOCATION, meaning, UNIFORM, (), (uniform, *own))


def _allocation(name: str) -> Choice:
    origin = origin_text(ALLOCATIONS.origin(name))
    try:
        cls = ALLOCATIONS.get(name)
        sets = tuple(key_of(f"sparsity.{option}", value, [cls]) for option, value in defaults(cls).items())
    except StatpruneError as error:
        return Choice(name, "can't be used", origin=origin, problem=first_line(error))
    return Choice(name, summary(description(cls)), source=description(cls), origin=origin, sets=sets)

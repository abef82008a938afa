"""The kinds of choices that a configuration makes by name, and what a choice becomes with its options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from statprune.core.compensation import COMPENSATIONS
from statprune.core.methods import method_names, options_class
from statprune.core.patterns import PATTERNS
from statprune.core.refinement import REFINEMENTS
from statprune.data.sources import SOURCES
from statprune.errors import PluginError
from statprune.pruning.allocation import ALLOCATIONS
from statprune.system.options import PlainValues, defaults, option_names, plain
from statprune.system.registry import Origin

T = TypeVar("T")

WINDOWS = {"samples": 128, "seq_len": 2048}  # of calibration, where a source's plugin has no file of its own
# keys that take a list; a text stands for a list of one
LIST_KEYS = (
    *("model.exclude", "refinement.exclude", "evaluation.tasks", "evaluation.datasets"),
    *("tracking.tags", "tracking.artifacts", "plugins"),
)
NONE = "none"  # in a stage's place: it is left out
SPARSITY_KEYS = ("ratio", "group", "keep", "of", "pattern", "allocation", "layer_ratios")


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """A choice with its options.

    Attributes:
        name: of the choice.
        value: ready to use.
        options: instance of the dataclass whose fields are the configuration's keys; often the value itself.
        origin: where the choice comes from.
    """

    name: str
    value: T
    options: object
    origin: Origin

    @property
    def plain_options(self) -> PlainValues:
        """The options as plain values."""
        return plain(self.options)


@dataclass(frozen=True)
class ChoiceGroup:
    """A group of the configuration whose choices are a registry's; a choice needs no file of its own.

    Attributes:
        names: of the choices that are in no file, if no file has their name.
        values: what a choice sets where no file does.
    """

    names: Callable[[], list[str]]
    values: Callable[[str], PlainValues]


def plugin_patterns() -> list[str]:
    """Names of the patterns that plugins bring; ours are chosen by their keys."""
    return [name for name in PATTERNS.names() if not PATTERNS.is_own(name)]


def allocation_keys() -> dict[str, list[str]]:
    """The allocations that have each key of ``sparsity`` which is an allocation's option.

    Those of plugins that can't be used are left out: whoever chooses one is told.
    """
    owners: dict[str, list[str]] = {}
    for name in ALLOCATIONS.names():
        try:
            options = allocation_options(name)
        except PluginError:  # it is reported where the allocation is chosen, and breaks nothing that others choose
            continue
        for option in options:
            owners.setdefault(option, []).append(name)
    return owners


def allocation_options(name: str) -> list[str]:
    """The options of an allocation, which are keys of ``sparsity``.

    Raises:
        PluginError: its plugin can't be imported, or an option has a name that means something else there.
    """
    options = option_names(ALLOCATIONS.get(name))
    if taken := [option for option in options if option in SPARSITY_KEYS]:
        raise PluginError(
            f"{ALLOCATIONS.described(name)} has the option {taken[0]!r}, which is a key of sparsity already; "
            "rename the option, or uninstall the plugin"
        )
    return options


CHOICE_GROUPS: Mapping[str, ChoiceGroup] = {
    "calibration": ChoiceGroup(SOURCES.names, lambda name: {"source": name, **WINDOWS}),
    "compensation": ChoiceGroup(COMPENSATIONS.names, lambda name: {"name": name, **defaults(COMPENSATIONS.get(name))}),
    "method": ChoiceGroup(method_names, lambda name: {"name": name, **defaults(options_class(name))}),
    "refinement": ChoiceGroup(REFINEMENTS.names, lambda name: {"name": name, **defaults(REFINEMENTS.get(name))}),
    "sparsity": ChoiceGroup(plugin_patterns, lambda name: {"pattern": name, **defaults(PATTERNS.get(name))}),
}

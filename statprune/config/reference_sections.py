"""What describes the keys of a group's section: our dataclasses, and those of a choice's options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from statprune.config.choices import NONE, allocation_keys
from statprune.config.reference_keys import Key, key_of, shown
from statprune.config.sections import (
    CalibrationConfig,
    EvaluationConfig,
    ModelConfig,
    QuantizeConfig,
    SparsityConfig,
    TrackingConfig,
)
from statprune.config.sparsity import N_M, UNSTRUCTURED
from statprune.core.compensation import COMPENSATIONS
from statprune.core.methods import DENSE, METHODS, method_names, method_origin, options_class
from statprune.core.patterns import PATTERNS
from statprune.core.refinement import REFINEMENTS
from statprune.core.score import SCORES
from statprune.data.sources import SOURCES, PathUse, Source
from statprune.pruning.allocation import ALLOCATIONS
from statprune.system.docstrings import description
from statprune.system.options import PlainValues, defaults
from statprune.system.registry import Origin, Registry

# what each of our groups chooses, in the order of a run
GROUPS = {
    "model": "which model is pruned, and which of its matrices stay dense",
    "calibration": "the text that calibration windows are cut from",
    "sparsity": "the pattern: how much is removed, and within what",
    "method": "which weights are removed, and how those that stay change meanwhile",
    "refinement": "after the method: a better mask with as many kept weights",
    "compensation": "once the mask is fixed: how the kept weights change (method=cvr brings energy)",
    "evaluation": "what is measured, dense and pruned",
    "quantize": "weights as integers, by torchao (an extra): perplexity and fidelity, dense and pruned; no tasks",
    "tracking": "what Weights & Biases gets",
    "experiment": "several choices and keys at once, set before those of the command line",
    "hydra/launcher": "where a sweep (-m) runs its jobs, and how many at a time; all but basic are extras",
    "hydra/sweeper": "which jobs a sweep (-m) has; optuna is an extra",
}
SCHEMAS: Mapping[str, type] = {
    "model": ModelConfig,
    "calibration": CalibrationConfig,
    "sparsity": SparsityConfig,
    "evaluation": EvaluationConfig,
    "quantize": QuantizeConfig,
    "tracking": TrackingConfig,
}
PATHS = {
    PathUse.none: "It reads no path.",
    PathUse.optional: "It reads a path if one is given.",
    PathUse.required: "It needs a path.",
}


@dataclass(frozen=True)
class Section:
    """A group's section of a configuration.

    Attributes:
        group: name of the group.
        name: of the registry's choice in it; empty where the group has no registry, or the choice is to do nothing.
        classes: dataclasses whose fields are the keys.
        source: the docstring of the choice.
    """

    group: str
    name: str
    classes: tuple[type, ...]
    source: str

    @property
    def field_names(self) -> list[str]:
        """The keys in the order of the dataclasses."""
        return [
            *([] if self.group in SCHEMAS else ["name"]),
            *(item.name for cls in self.classes for item in fields(cls)),
        ]

    def key(self, name: str, value: object, comment: str = "") -> Key:
        """A key of the section.

        Args:
            name: full name.
            value: its default.
            comment: of a file, for a key that no dataclass has.
        """
        if name == f"{self.group}.name" and self.group not in SCHEMAS:
            return Key(name, "text", value, None, f"the choice itself: give {self.group}=NAME")
        key = key_of(name, value, self.classes, comment)
        owners = allocation_keys().get(name.removeprefix("sparsity."), []) if self.group == "sparsity" else []
        return _key_of_allocations(name, value, owners) if owners and not key.meaning else key


def section_of(group: str, values: PlainValues) -> Section:
    """The section of a group with these values.

    Raises:
        ChoiceError: a name in it is no choice.
        PluginError: the plugin of the choice can't be imported.
    """
    describe = _REGISTRY_GROUPS.get(group)
    name = "" if describe is None else describe.name(values)
    own = (SCHEMAS[group],) if group in SCHEMAS else ()
    if describe is None or not name:
        return Section(group, "", own, "")
    options = describe.options(name)
    classes = (*own, options) if is_dataclass(options) else own
    return Section(group, name, classes, describe.source(name))


def registry_origin(group: str, name: str) -> str:
    """The plugin that brings a choice of a registry; empty where it is ours, or the registry has no such choice."""
    describe = _REGISTRY_GROUPS.get(group)
    return origin_text(describe.origin(name)) if describe is not None and name in describe.names() else ""


def origin_text(origin: Origin) -> str:
    """Where a choice comes from, as people read it; empty where it is ours."""
    if origin.is_own:
        return ""
    return f"{origin.distribution} {origin.version}" if origin.distribution else origin.module


@dataclass(frozen=True)
class _RegistryGroup:
    """How a group's choices are found in a registry.

    Attributes:
        name: the registry's name in the values of a section; empty: none.
        names: all names of the registry.
        options: the dataclass of a choice's options.
        source: the docstring of a choice.
        origin: where a choice comes from.
    """

    name: Callable[[PlainValues], str]
    names: Callable[[], list[str]]
    options: Callable[[str], object]
    source: Callable[[str], str]
    origin: Callable[[str], Origin]


def _of_registry(registry: Registry[Any], name: Callable[[PlainValues], str]) -> _RegistryGroup:
    return _RegistryGroup(
        name, registry.names, registry.get, lambda own: description(registry.get(own)), registry.origin
    )


def _named(values: PlainValues) -> str:
    name = str(values.get("name") or "")
    return "" if name in (NONE, DENSE) else name


def _pattern_name(values: PlainValues) -> str:
    """Ours are chosen by their keys."""
    return str(values.get("pattern") or (N_M if values.get("keep") is not None else UNSTRUCTURED))


def _method_source(name: str) -> str:
    """What a score computes, and what is said of its options; or what a method does."""
    if name not in SCORES:
        return description(METHODS.get(name))
    score = SCORES.get(name)
    own = [description(score), description(score.options) if fields(score.options) else ""]
    return "\n\n".join(filter(None, own))


def _source_text(name: str) -> str:
    source = SOURCES.get(name)
    uses_path = PATHS[source.path_use] if isinstance(source, type) and issubclass(source, Source) else ""
    return f"{description(source)} {uses_path}".strip()


def _key_of_allocations(name: str, value: object, owners: list[str]) -> Key:
    """A key that allocations add to ``sparsity``; null stands for the default of the one that is chosen."""
    option = name.removeprefix("sparsity.")
    cls = ALLOCATIONS.get(owners[0])
    key = key_of(name, value, [cls])
    values = [shown(defaults(ALLOCATIONS.get(owner))[option]) for owner in owners]
    own = [f"sparsity.allocation={owner} (null: {value})" for owner, value in zip(owners, values, strict=True)]
    meaning = f"{key.meaning}; only with {' or '.join(own)}"
    return Key(name, f"{key.type} or null", value, key.unit, meaning)


_REGISTRY_GROUPS: Mapping[str, _RegistryGroup] = {
    "calibration": _RegistryGroup(
        lambda values: str(values.get("source") or ""), SOURCES.names, lambda name: None, _source_text, SOURCES.origin
    ),
    "compensation": _of_registry(COMPENSATIONS, _named),
    "method": _RegistryGroup(_named, method_names, options_class, _method_source, method_origin),
    "refinement": _of_registry(REFINEMENTS, _named),
    "sparsity": _of_registry(PATTERNS, _pattern_name),
}

"""The section ``sparsity`` becomes a pattern and an allocation."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from statprune.config.choices import Chosen, allocation_keys, allocation_options
from statprune.config.sections import SparsityConfig
from statprune.core.methods import Method
from statprune.core.patterns import PATTERNS, Group, Pattern
from statprune.pruning.allocation import ALLOCATIONS, UNIFORM, Allocation, BlockRatios, NamedRatios
from statprune.system.options import PlainValues, build, option_names

UNSTRUCTURED, N_M = "unstructured", "n_m"  # names of our patterns, which are chosen by their keys


@dataclass(frozen=True)
class ParsedSparsity:
    """What the section asks for.

    Attributes:
        asked: as it was asked for, with the defaults.
        pattern: None where something is wrong with it.
        allocation: a choice, explicit ratios, or None.
    """

    asked: SparsityConfig
    pattern: Chosen[Pattern] | None
    allocation: Chosen[Allocation] | Allocation | None


def parse_sparsity(values: Mapping[str, Any], method: Chosen[Method] | None) -> tuple[ParsedSparsity, list[str]]:
    """The pattern and the allocation, and a sentence for everything wrong with them.

    Args:
        values: of the section.
        method: whose authors' group is the default.
    """
    own = {item.name for item in fields(SparsityConfig)} - {"options"}
    built = build(SparsityConfig, {key: value for key, value in values.items() if key in own}, "sparsity.")
    asked = built.value or SparsityConfig()
    parser = _Parser(asked, {key: value for key, value in values.items() if key not in own}, list(built.problems))
    allocation = parser.allocation()
    pattern = parser.pattern(method)
    parser.check_others()
    return ParsedSparsity(asked, pattern, allocation), parser.problems


def expression_problems(expressions: Iterable[str], key: str) -> list[str]:
    """A sentence for each text that is no regular expression."""
    problems = []
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            problems.append(f"{key} has {expression!r}, which is no regular expression: {error}")
    return problems


@dataclass
class _Parser:
    """Reads a section.

    Attributes:
        asked: keys that every pattern has; what is missing is filled in.
        others: other keys: options of allocations and of plugins' patterns.
        problems: sentences so far.
        used: keys of ``others`` that mean something.
    """

    asked: SparsityConfig
    others: PlainValues
    problems: list[str]
    used: set[str] = field(default_factory=set)

    def allocation(self) -> Chosen[Allocation] | Allocation | None:
        """None, a choice, or explicit ratios."""
        asked, name = self.asked, self.asked.allocation
        is_chosen, ratios = name != UNIFORM, asked.layer_ratios
        if (is_chosen or ratios is not None) and not (asked.keep is None and asked.of is None):
            given = f"sparsity.allocation={name}" if is_chosen else "sparsity.layer_ratios"
            self.problems.append(f"{given} is for unstructured sparsity, not for N:M; leave it out")
        if is_chosen and name not in ALLOCATIONS:
            self.problems.append(f"sparsity.allocation: {ALLOCATIONS.unknown(name, (UNIFORM,))}")
            return None
        if ratios is None:
            return self._chosen_allocation(name) if is_chosen else None
        if is_chosen:
            self.problems.append(
                f"sparsity.layer_ratios and sparsity.allocation={name} both decide the ratios; give one of them"
            )
        return self._explicit_ratios()

    def pattern(self, method: Chosen[Method] | None) -> Chosen[Pattern] | None:
        """The pattern; None where something is wrong with it."""
        if self.asked.pattern is not None:
            return self._plugin_pattern(self.asked.pattern)
        if self.asked.keep is not None or self.asked.of is not None:
            return self._n_m()
        return self._unstructured(method)

    def check_others(self) -> None:
        """Keys that mean nothing here: those of other allocations are told apart from those that nobody knows."""
        owners = allocation_keys()
        for key, value in self.others.items():
            if key in self.used or (key in owners and value is None):
                continue
            if key in owners:
                names = " or ".join(owners[key])
                self.problems.append(
                    f"sparsity.{key} is for sparsity.allocation={names}; leave it out or choose {names}"
                )
            else:
                keys = [item.name for item in fields(self.asked) if item.name != "options"]
                self.problems.append(f"sparsity.{key} is not a key; its keys are {', '.join([*keys, *owners])}")

    def _chosen_allocation(self, name: str) -> Chosen[Allocation] | None:
        cls = ALLOCATIONS.get(name)
        keys = allocation_options(name)
        given = {key: self.others[key] for key in keys if self.others.get(key) is not None}
        self.used.update(keys)
        result = build(cls, given, "sparsity.")
        self.problems += result.problems
        if result.value is None:
            return None
        chosen = Chosen[Allocation](name, result.value, result.value, ALLOCATIONS.origin(name))
        self.asked.options |= chosen.plain_options
        return chosen

    def _explicit_ratios(self) -> Allocation | None:
        asked, ratios = self.asked, self.asked.layer_ratios
        if isinstance(ratios, dict):
            ratios = asked.layer_ratios = {str(expression): ratio for expression, ratio in ratios.items()}
        if not isinstance(ratios, list | dict) or not ratios:
            self.problems.append(
                "sparsity.layer_ratios is neither a list (a ratio for each block) nor {expression: ratio}"
            )
            return None
        if isinstance(ratios, list) and asked.ratio is not None:
            self.problems.append(
                "sparsity.ratio is given together with a list of sparsity.layer_ratios; give one or the other"
            )
        for value in ratios.values() if isinstance(ratios, dict) else ratios:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                self.problems.append(f"sparsity.layer_ratios has {value}, which is no number in [0, 1)")
        if isinstance(ratios, dict):
            self.problems += expression_problems(ratios, "sparsity.layer_ratios")
            return NamedRatios(tuple(ratios.items()))
        return BlockRatios(tuple(ratios))

    def _plugin_pattern(self, name: str) -> Chosen[Pattern] | None:
        asked = self.asked
        if name not in PATTERNS:
            self.problems.append(f"sparsity.pattern: {PATTERNS.unknown(name)}")
            return None
        if PATTERNS.is_own(name):
            self.problems.append(f"sparsity.pattern={name} is for plugins; give sparsity.ratio, or keep and of (N:M)")
            return None
        cls = PATTERNS.get(name)
        keys = set(option_names(cls))
        common = {"ratio": asked.ratio, "keep": asked.keep, "of": asked.of, "group": asked.group}
        given = {key: value for key, value in {**common, **self.others}.items() if key in keys and value is not None}
        self.used.update(keys)
        self.problems += [
            f"sparsity.{key} is given, but the pattern {name!r} has no such option; leave it out"
            for key, value in common.items()
            if key not in keys and value is not None
        ]
        result = build(cls, given, "sparsity.")
        self.problems += result.problems
        if result.value is None:
            return None
        chosen = Chosen[Pattern](name, result.value, result.value, PATTERNS.origin(name))
        asked.options |= {key: value for key, value in chosen.plain_options.items() if key not in common}
        for key in common.keys() & keys:
            setattr(asked, key, getattr(chosen.value, key))
        return chosen

    def _unstructured(self, method: Chosen[Method] | None) -> Chosen[Pattern] | None:
        asked = self.asked
        if asked.group is None:
            asked.group = Group.row if method is None else method.value.group
        if not isinstance(asked.layer_ratios, list) and asked.ratio is None:
            asked.ratio = 0.5
        ratio = 0.0 if asked.ratio is None else asked.ratio  # every matrix's ratio is in the list
        if not 0 <= ratio < 1:
            self.problems.append(
                f"sparsity.ratio={asked.ratio} is outside [0, 1); give the fraction to remove, such as 0.5"
            )
            return None
        return self._own(UNSTRUCTURED, {"ratio": ratio, "group": asked.group})

    def _n_m(self) -> Chosen[Pattern] | None:
        asked, keep, of = self.asked, self.asked.keep, self.asked.of
        if keep is None or of is None:
            self.problems.append(
                "N:M sparsity needs both sparsity.keep and sparsity.of; give, for example, keep=2 and of=4"
            )
        elif not 0 < keep < of:
            self.problems.append(f"sparsity.keep={keep} with sparsity.of={of} is no N:M pattern; give 0 < keep < of")
        if asked.group is not None:
            self.problems.append("sparsity.group is for unstructured sparsity, not for N:M; leave it out")
        if asked.ratio is not None:
            self.problems.append("sparsity.ratio is given together with keep and of (N:M); give one or the other")
        elif keep is not None and of is not None and 0 < keep < of:
            return self._own(N_M, {"keep": keep, "of": of})
        return None

    def _own(self, name: str, options: PlainValues) -> Chosen[Pattern]:
        value = PATTERNS.get(name)(**options)
        return Chosen(name, value, value, PATTERNS.origin(name))

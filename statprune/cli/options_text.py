"""What ``statprune options`` shows of all groups, of one, and of one choice."""

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.text import Text

from statprune.cli.help import choice_line
from statprune.cli.layout import entry, heading, key_entries, paragraphs
from statprune.config.reference import ALLOCATION, Choice, Group, Reference
from statprune.config.reference_keys import Key
from statprune.errors import ConfigError

SHORT_NAMES = {"allocation": ALLOCATION, "launcher": "hydra/launcher", "sweeper": "hydra/sweeper"}


@dataclass(frozen=True)
class Asked:
    """What a person asked for.

    Attributes:
        group: the group.
        choice: one of its choices; None: the group itself.
    """

    group: Group
    choice: Choice | None


def asked(reference: Reference, what: str) -> Asked:
    """The group or the choice that ``GROUP[=CHOICE]`` names.

    Raises:
        ConfigError: there is none.
    """
    name, is_choice, choice_name = what.partition("=")
    name = SHORT_NAMES.get(name, name)
    if name not in reference.group_names:
        raise ConfigError([_unknown(f"{name} is no group", name, reference.group_names, "the groups are")])
    group = reference.group(name)
    names = [choice.name for choice in group.choices]
    if not is_choice:
        return Asked(group, None)
    if choice_name not in names:
        raise ConfigError(
            [_unknown(f"{name}={choice_name} is not a choice", choice_name, names, "choose one of", f"{name}=")]
        )
    choice = group.choice(choice_name)
    if choice.problem:
        raise ConfigError([choice.problem])
    return Asked(group, choice)


def facts(reference: Reference, what: Asked | None) -> object:
    """The same as plain values, for other programs."""
    if what is None:
        return {"keys": [asdict(key) for key in reference.keys], "groups": [asdict(own) for own in reference.groups]}
    if what.choice is None:
        return asdict(what.group)
    keys = reference.section(what.group.name, what.choice.name)
    return {"group": what.group.name, **asdict(what.choice), "keys": [asdict(key) for key in keys]}


def lines(reference: Reference, what: Asked | None) -> list[Text]:
    """Lines for the terminal."""
    if what is None:
        return _overview(reference)
    if what.choice is None:
        return _group(what.group)
    return _choice(what.group, what.choice, reference.section(what.group.name, what.choice.name))


def _overview(reference: Reference) -> list[Text]:
    result = [heading("Groups (GROUP=CHOICE; the first choice is the default)")]
    for group in reference.groups:
        result += [entry(group.name, group.meaning, column=22)]
        result += [entry("", " ".join(choice.name for choice in group.choices), column=22)]
    problems = [f"{own.name}={choice.name}" for own in reference.groups for choice in own.choices if choice.problem]
    if problems:
        result += [Text(), heading("Choices that can't be used"), *(entry(name, "") for name in problems)]
    result += [Text(), heading("Keys outside of groups"), *key_entries(reference.keys), Text()]
    return [*result, paragraphs("statprune options GROUP, and GROUP=CHOICE, tell the other keys.", 0)]


def _group(group: Group) -> list[Text]:
    result = [heading(f"{group.name}: {group.meaning}" if group.meaning else group.name)]
    result += [entry(f"{group.name}={choice.name}", choice_line(group, choice)) for choice in group.choices]
    if group.keys:
        result += [Text(), heading("Keys, with the values of the default job"), *key_entries(group.keys)]
    return [*result, Text(), paragraphs(f"statprune options {group.name}=CHOICE tells the keys of one choice.", 0)]


def _choice(group: Group, choice: Choice, keys: Sequence[Key]) -> list[Text]:
    marks = [*(["the default"] if choice.name == group.default else []), *([choice.origin] if choice.origin else [])]
    result = [heading(f"{group.name}={choice.name}" + (f" ({', '.join(marks)})" if marks else ""))]
    result += [paragraphs(text) for text in (choice.note, choice.source) if text]
    if not (choice.note or choice.source):
        result.append(paragraphs(choice.summary))
    changed = ", ".join(key.assignment for key in choice.sets)
    if choice.based_on:
        result.append(paragraphs(f"It is {group.name}={choice.based_on} with {changed}."))
    if choice.brings:
        result.append(paragraphs(f"It brings {', '.join(choice.brings)}."))
    return [*result, Text(), heading("Keys"), *key_entries(keys)]


def _unknown(problem: str, name: str, names: Sequence[str], list_of: str, prefix: str = "") -> str:
    near = difflib.get_close_matches(name, names, 1) or [own for own in names if own == name.partition(".")[0]]
    return f"{problem}; " + (f"did you mean {prefix}{near[0]}?" if near else f"{list_of} {', '.join(names)}")

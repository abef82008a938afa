"""``statprune --help``: example commands, verbs, and every group, choice and key in a line or two."""

import re

from rich.text import Text

from statprune.cli.layout import entry, heading, paragraphs, show
from statprune.config.reference import Choice, Group, Reference
from statprune.config.reference_keys import Key

CLAUSE = re.compile(r";(?![^(]*\))")  # not within parentheses
SENTENCE = re.compile(r"(?<=\.)\s+(?=[A-Z])|\s(?=pip install)")
ABOUT = "statprune prunes a language model in one shot and measures what it cost."
EXAMPLES = {
    "statprune": "prune the bundled model with the paper's method",
    "statprune method=wanda sparsity=2_4": "another method, another pattern",
    "statprune model.path=/my/model calibration=text calibration.path=my.txt": "your own model and text",
    "statprune -m method=wanda,cvr seed=0,1": "every combination; what is finished is not run again",
    "statprune evaluation=full evaluation.tasks=[bundled]": "perplexity and zero-shot accuracy",
    "statprune --cfg job": "print the composed configuration",
}
FLAGS = {
    "-m": "a sweep: several values, or an experiment with a grid",
    "--config-dir DIR": "a folder of your own configurations, laid out as these groups",
    "--cfg job": "print the configuration in place of a run",
    "--hydra-help": "Hydra's other flags",
    "--version": "of statprune; with --json of what it depends on, and the machine: for a report of a fault",
}


def print_help(verbs: dict[str, str]) -> None:
    """Print the help of the command.

    Args:
        verbs: what each does.
    """
    reference = Reference()
    lines = [Text(ABOUT), Text()]
    lines += [entry(command, meaning, column=46) for command, meaning in EXAMPLES.items()]
    lines += [Text(), heading("Verbs (statprune VERB --help has their options and an example)")]
    lines += [entry(f"statprune {name}", meaning) for name, meaning in verbs.items()]
    lines += [Text(), heading("Flags"), *(entry(flag, meaning) for flag, meaning in FLAGS.items())]
    lines += [Text(), heading("Keys outside of groups: key=default")]
    lines += [entry(key.assignment, _short(key)) for key in reference.keys]
    for group in reference.groups:
        lines += group_help(group)
    lines += [Text(), paragraphs("Types, units, formulas and papers: statprune options GROUP=CHOICE", 0)]
    show(lines)


def group_help(group: Group) -> list[Text]:
    """A group, its choices, and every key of theirs."""
    lines = [Text(), heading(f"{group.name}: {group.meaning}" if group.meaning else group.name)]
    lines += [line for choice in group.choices for line in _choice_help(group, choice)]
    return lines + [entry(key.assignment, _short(key)) for key in group.keys]


def _choice_help(group: Group, choice: Choice) -> list[Text]:
    """The choice with what it sets, and below it the keys that it alone has."""
    lines = [entry(f"{group.name}={choice.name}", choice_line(group, choice))]
    return lines + [entry(key.assignment, _short(key), indent=4) for key in group.own_keys(choice)]


def choice_line(group: Group, choice: Choice) -> str:
    """What a choice is, where it comes from, and what it changes."""
    if choice.problem:
        return f"can't be used: {choice.problem}"
    marks = [*(["the default"] if choice.name == group.default else []), *([choice.origin] if choice.origin else [])]
    text = SENTENCE.split(choice.summary)[0].rstrip(".") + (f" ({', '.join(marks)})" if marks else "")
    changed = ", ".join(key.assignment for key in group.changed_keys(choice))
    parts = [f"{choice.based_on} with {changed}" if choice.based_on else changed, *choice.brings]
    return "; ".join([text, *(part for part in parts if part and part not in text)])


def _short(key: Key) -> str:
    """The first clause of a meaning, what ``null`` stands for, and the unit."""
    clauses = [clause.strip() for clause in CLAUSE.split(key.meaning)]
    meaning = "; ".join([clauses[0], *(clause for clause in clauses[1:] if clause.startswith("null:"))])
    return f"{meaning} [{key.unit}]" if key.unit else meaning

"""What is wrong with overrides that Hydra's grammar can't read, and the quoting with which it can."""

from collections.abc import Sequence

from hydra.errors import HydraException

from statprune.config.compose import parse_overrides
from statprune.config.quoting import shown_for_shell
from statprune.errors import first_line


def unreadable_overrides(arguments: Sequence[str]) -> list[str]:
    """A sentence for each override that can't be read.

    Args:
        arguments: overrides without command-line flags.
    """
    return [problem for argument in arguments if (problem := _problem(argument))]


def _problem(argument: str) -> str | None:
    try:
        parse_overrides([argument])
    except HydraException as error:
        reason = first_line(error)
    else:
        return None
    quoting = _quoting(argument)
    for opening, closing in ("[]", "{}", "()"):  # Hydra's parser names its own signs
        missing = argument.count(opening) - argument.count(closing)
        if missing:
            absent = closing if missing > 0 else opening
            literal = f"; for a text with such a sign write {quoting}" if quoting else ""
            return f"{argument} lacks a {absent}; add it, and put the whole into quotes for the shell{literal}"
    if quoting and "while evaluating" in reason:  # a function of the grammar's
        return f"{argument} can't be evaluated ({reason}); mend the call, or, for a text, write {quoting}"
    advice = f"write {quoting}" if quoting else "write key=value, and quote what the shell may change"
    return f"{argument or 'an empty override'} can't be read ({reason}); {advice}"


def _quoting(argument: str) -> str | None:
    """The override as a shell takes it, with its value quoted; None where no quoting makes it readable."""
    key, equals, value = argument.partition("=")
    if not (key and equals and value) or "\0" in value:
        return None
    shown = shown_for_shell(argument)
    try:
        parse_overrides([f"{key}=x"])
    except HydraException:  # it is the key that can't be read
        return None
    return shown

"""The order of a command's arguments: a user may mix overrides and Hydra's flags; Hydra wants overrides together."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from statprune.errors import ConfigError


class SentenceParser(argparse.ArgumentParser):
    """A parser that says in a sentence what is wrong with arguments, without its usage."""

    def error(self, message: str) -> NoReturn:
        """End the command.

        Raises:
            ConfigError: always.
        """
        raise ConfigError([f"{message}; {self.prog} --help lists what there is"])


def flags_parser() -> argparse.ArgumentParser:
    """The parser of Hydra's flags, which says in a sentence what is wrong with them."""
    from hydra._internal.utils import get_args_parser  # slow to import: not for the verbs

    parser: argparse.ArgumentParser = get_args_parser()
    parser.__class__, parser.prog = SentenceParser, "statprune"
    return parser


def overrides_first(arguments: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """The same arguments with all overrides before all flags, each kind in its own order.

    Overrides come first because a flag whose value may be left out would take the override after it.

    Args:
        arguments: as they were typed.
        parser: knows the flags, and which of them take a value.
    """
    overrides: list[str] = []
    flags: list[str] = []
    waiting = iter(arguments)
    argument = next(waiting, None)
    while argument is not None:
        following = next(waiting, None)
        if not argument.startswith("-"):
            overrides.append(argument)
        else:
            flags.append(argument)
            if following is not None and _takes(argument, following, parser):
                flags.append(following)
                following = next(waiting, None)
        argument = following
    return [*overrides, *flags]


def _takes(flag: str, following: str, parser: argparse.ArgumentParser) -> bool:
    """Whether what follows a flag is its value."""
    action = _action(flag, parser)
    if action is None or following.startswith("-"):
        return False
    if action.nargs == "?":  # the value may be left out
        return action.choices is None or following in action.choices
    return action.nargs != 0


def _action(flag: str, parser: argparse.ArgumentParser) -> argparse.Action | None:
    """What a flag without its value means; None where it has the value in it, as ``--cfg=job``, or is unknown."""
    known = {name: action for action in parser._actions for name in action.option_strings}
    if flag in known:
        return known[flag]
    # argparse takes the beginning of a long flag for the flag
    begun = {id(action): action for name, action in known.items() if flag.startswith("--") and name.startswith(flag)}
    return next(iter(begun.values())) if len(begun) == 1 else None

"""The operators of Hydra's overrides, + ++ and ~, where the key is one that every run has."""

from collections.abc import Sequence

from hydra.core.override_parser.types import Override


def group_problem(override: Override, options: Sequence[str], is_present: bool) -> str | None:
    """What is wrong with how an override treats a group, in a sentence, or None.

    Args:
        override: of the group.
        options: the choices there are.
        is_present: the group has a choice already.
    """
    key = override.key_or_group
    if override.is_delete():
        return f"~{key} would leave the run without it; choose one of {', '.join(options)}"
    if override.is_force_add() or (override.is_add() and is_present):
        sign = "++" if override.is_force_add() else "+"
        return f"{override.input_line} adds what is there already; leave the {sign} out, and give {key}=CHOICE"
    return None


def key_problem(override: Override, exists: bool) -> str | None:
    """What is wrong with how an override treats a key, in a sentence, or None.

    Args:
        override: of the key.
        exists: the groups' choices compose it.
    """
    key = override.key_or_group
    if override.is_delete() and exists and not _is_entry(key):
        return f"{override.input_line} would leave the run without {key}; give {key}=VALUE"
    if override.is_add() and exists:
        return f"{override.input_line} adds what is there already; leave the + out"
    return None


def _is_entry(key: str) -> bool:
    """Whether it is an entry of a key's own dictionary, as of sparsity.layer_ratios, which may be missing."""
    return key.count(".") > 1

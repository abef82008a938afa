"""Values that Hydra's grammar can't read as people type them."""

import re
import shlex

from hydra.core.override_parser.types import Quote, QuotedString


def quote_equals(override: str) -> str:
    """``key=value`` with the value quoted where an equals sign is in it, as in ``model.path=RUN_alpha=0.25/model``.

    A value that is quoted, or holds what Hydra's grammar gives a meaning to, is the user's business; so are flags.
    """
    key, _, value = override.partition("=")
    means_something = re.search(r"[][(){},'\"]|\\$", value)
    if override.startswith("-") or "=" not in value or means_something:
        return override
    return f"{key}='{value}'"


def shown_for_shell(override: str) -> str:
    """What a user types in a shell for the value to be taken as it is, every sign of it.

    Args:
        override: ``key=value``, without quotes of its own; one at one end alone is taken for a sign.
    """
    key, _, value = override.partition("=")
    if value.count("${") > value.count("}"):
        value = value.replace("${", "\\${")  # OmegaConf takes it for a sign, not for the beginning of an interpolation
    quote = Quote.single if '"' in value and "'" not in value else Quote.double
    return shlex.quote(f"{key}={QuotedString(value, quote).with_quotes()}")

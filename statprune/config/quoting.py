"""Values that Hydra's grammar can't read as people type them."""

import re


def quote_equals(override: str) -> str:
    """``key=value`` with the value quoted where an equals sign is in it, as in ``model.path=RUN_alpha=0.25/model``.

    A value that is quoted, or holds what Hydra's grammar gives a meaning to, is the user's business; so are flags.
    """
    key, _, value = override.partition("=")
    means_something = re.search(r"[][(){},'\"]|\\$", value)
    if override.startswith("-") or "=" not in value or means_something:
        return override
    return f"{key}='{value}'"

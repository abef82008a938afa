"""How people read numbers of a record."""

import math


def shown(perplexity: float | None) -> str:
    """A perplexity; one that is not finite is null in a record's file."""
    return f"{perplexity:.4f}" if perplexity is not None and math.isfinite(perplexity) else "not finite"


def with_error(value: float | None, error: float | None, sign: str = "") -> str:
    """A value with its standard error where there is one.

    Args:
        value: None where it is not finite, or no number.
        error: standard error, or None.
        sign: ``+`` to show the sign of a positive value, too.
    """
    if value is None:
        return "none"
    digits = ".4f" if abs(value) < 100 else ".6g"
    return f"{value:{sign}{digits}}" + ("" if error is None else f" ± {error:{digits}}")


def counted(number: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

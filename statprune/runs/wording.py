"""How people read numbers of a record."""

import math

from statprune.runs.record import FidelityResult


def shown(perplexity: float | None) -> str:
    """A perplexity; one that is not finite is null in a record's file."""
    return f"{perplexity:.4f}" if perplexity is not None and math.isfinite(perplexity) else "not finite"


def fidelity_shown(fidelity: FidelityResult) -> tuple[str, str]:
    """Divergence in nats per token, and agreement in percent."""
    if fidelity.divergence is None or fidelity.agreement is None:
        return "not finite", "not finite"
    return f"{fidelity.divergence:.4f}", f"{100 * fidelity.agreement:.2f}%"


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


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """1 run, 2 runs.

    Args:
        number: how many there are.
        noun: what one is called, and what is said of it where that depends on the number.
        nouns: what several are called; None: as one, with an s.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {nouns or noun + 's'}"

"""Errors of Hydra and OmegaConf while a configuration is composed, as sentences that name the key."""

from omegaconf.errors import (
    GrammarParseError,
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from statprune.errors import ConfigError, first_line


def composing_problem(error: Exception) -> str:
    """What is wrong, in one sentence.

    Args:
        error: of Hydra, whose cause may be OmegaConf's, of OmegaConf, or ours.
    """
    # OmegaConf's outermost error knows the key; with OC_CAUSE=1, or in a debugger, its cause is an error that does not
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if not isinstance(cause, OmegaConfBaseException):
        return _of_hydra(error)
    what = first_line(cause)
    own = f"{ConfigError.__name__} raised while resolving interpolation: "
    if what.startswith(own):  # a sentence of ours, from a resolver of ours
        return f"{cause.full_key}: {what.removeprefix(own)}"
    if cause is not error and str(error).strip():
        what = f"{first_line(error).rstrip('.')}: {what}"
    key = cause.full_key
    where = f"{key}: " if key and key not in what else ""
    return f"{where}{what}; {_advice(cause)}"


def _of_hydra(error: Exception) -> str:
    """What Hydra, or one of our own errors, says, which goes on after a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) if lines and lines[0].endswith(":") else first_line(error)
    return f"{text.rstrip('.')}; mend that file, or its defaults list" if text.startswith("In '") else text


def _advice(error: OmegaConfBaseException) -> str:
    if isinstance(error, InterpolationKeyError):
        return "name a key that there is (statprune options lists them), or give the value itself"
    if isinstance(error, InterpolationResolutionError | GrammarParseError):
        return "give the value itself"
    return "statprune options lists every key with its type"

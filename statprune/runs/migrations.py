"""Records of older schemas, made those of today's step by step."""

from collections.abc import Callable, Mapping
from typing import Any

from statprune.errors import StatpruneError

SCHEMA_VERSION = 3
OWN_SOURCES = ("bundled", "text", "wikitext2", "c4")  # of schemas 1 and 2


def migrated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of any version of the schema as those of today's.

    Raises:
        StatpruneError: they have no version, or one that this statprune does not know.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("schema_version"), int):
        raise StatpruneError("it has no schema_version")
    result = dict(values)
    while (version := result["schema_version"]) != SCHEMA_VERSION:
        if version not in MIGRATIONS:
            raise StatpruneError(
                f"its schema is {version}, and this statprune reads {min(MIGRATIONS)} to {SCHEMA_VERSION}"
            )
        result = MIGRATIONS[version](result)
    return result


def _from_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """Schema 1 had the measurements below ``metrics``, and other words for what is not pruned and not corrected."""
    result = {key: value for key, value in values.items() if key != "metrics"}
    try:
        result |= {"perplexity": values["metrics"]["perplexity"], "zero_shot": values["metrics"].get("zero_shot")}
        kinds = {
            name: {"skipped": kind["left"], **{key: value for key, value in kind.items() if key != "left"}}
            for name, kind in values["coverage"]["kinds"].items()
        }
        result["coverage"] = values["coverage"] | {"kinds": kinds}
        if correction := values.get("correction"):
            unchanged = {"unchanged": correction["left"]}
            result["correction"] = unchanged | {key: value for key, value in correction.items() if key != "left"}
    except (KeyError, TypeError, AttributeError) as error:
        raise StatpruneError(f"{error} is missing or damaged") from error
    return result | {"schema_version": 2}


def _from_2(values: Mapping[str, Any]) -> dict[str, Any]:
    """Schema 2 told whether a tokenised text begins with BOS, not how many windows or requests do.

    Our sources cut evaluation windows from the text's beginning on, so that the first one alone begins with its BOS;
    calibration windows do that start at token 0. How a plugin's source cuts is not known.
    """
    result = dict(values)
    try:
        result["perplexity"] = {
            dataset: _with_counted_bos(perplexity, 1) for dataset, perplexity in values["perplexity"].items()
        }
        if origin := values.get("calibration"):
            starts = [start[-1] if isinstance(start, list) else start for start in origin.get("starts") or [0]]
            result["calibration"] = _with_counted_bos(origin, starts.count(0) if origin.get("starts") else None)
        if zero_shot := values.get("zero_shot"):
            protocol = dict(zero_shot["protocol"])
            # BOS before every prompt; where there was none, prompts without a context had one all the same
            protocol["requests_with_bos"] = protocol["requests"] if protocol.pop("begins_with_bos") else None
            result["zero_shot"] = zero_shot | {"protocol": protocol}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise StatpruneError(f"{error} is missing or damaged") from error
    return result | {"schema_version": 3}


def _with_counted_bos(origin: Mapping[str, Any], count: int | None) -> dict[str, Any]:
    """Values with a number in place of the yes or no; ``count`` is the number where the text begins with BOS."""
    result = dict(origin)
    begins, is_own = result.pop("begins_with_bos"), result["source"] in OWN_SOURCES
    return result | {"windows_with_bos": (count if begins else 0) if is_own else None}


# by version: makes the values of the next one
MIGRATIONS: dict[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}

"""Secrets of the environment, which no configuration may hold: it stands in records, in ``.hydra`` and in W&B."""

import os
import re
from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from statprune.errors import ConfigError

# words of a variable's name that say that its value is nobody's business
SECRET_WORDS = re.compile(
    r"(^|_)(KEY|TOKEN|PASS|PASSWD|PASSPHRASE|CREDENTIAL|AUTH|COOKIE)S?(_|$)|APIKEY|PASSWORD|SECRET|PRIVATE",
    re.IGNORECASE,
)
SHORTEST = 8  # characters of a value that can be told from a word that anybody writes


def is_secret(name: str) -> bool:
    """Whether an environment variable's name says that its value is a secret."""
    return SECRET_WORDS.search(name) is not None


def guard_environment() -> None:
    """From now on ``${oc.env:NAME}`` refuses the names of secrets, wherever it stands."""
    OmegaConf.register_new_resolver("oc.env", _variable, replace=True)


def _variable(key: str, *default: object) -> str | None:
    if is_secret(str(key)):
        raise ConfigError([f"${{oc.env:{key}}} would put a secret into records; {_advice(key)}"])
    value: str | None = oc.env(key, *default)
    return value


def without_secrets(text: str) -> str:
    """The text with the names of the environment's secrets in place of their values: a terminal's text may be kept."""
    for name, hidden in _secrets():
        text = text.replace(hidden, f"${name}")
    return text


def typed_secrets(override: str) -> list[str]:
    """A sentence for each secret of the environment whose value an override holds; the value is not shown.

    Args:
        override: as it was typed.
    """
    key, _, value = override.partition("=")
    return [_held(key, name) for name, hidden in _secrets() if hidden in value]


def composed_secrets(config: DictConfig) -> list[str]:
    """A sentence for each secret that a composed configuration holds, and for W&B's texts from the environment.

    Args:
        config: not resolved.
    """
    problems = []
    for key, value in _texts_of(OmegaConf.to_container(config, resolve=False), ""):
        problems += [_held(key, name) for name, hidden in _secrets() if hidden in value]
        if key.startswith("tracking.") and re.search(r"\$\{\s*oc\.env", value):
            problems.append(
                f"{key} takes its text from the environment ({value}), which would go into records and to W&B; "
                "write the text itself, or leave it out: W&B reads variables of its own"
            )
    return problems


def environment_problems(job: DictConfig) -> list[str]:
    """A sentence for each secret that Hydra would write into its files, to hand it to a job.

    Args:
        job: the part of Hydra's configuration that is called so.
    """
    copied = [str(name) for name in job.env_copy]
    keys = {str(name): "env_set" for name in job.env_set}
    keys |= dict.fromkeys(copied, "env_copy")  # which Hydra has set, too
    return [
        f"hydra.job.{key} has {name}, and Hydra would write its value into its files; {_advice(name)}"
        for name, key in keys.items()
        if is_secret(name)
    ]


def _held(key: str, name: str) -> str:
    return f"{key} holds the value of {name}, which would stand in records; {_advice(name)}"


def _advice(name: str) -> str:
    return f"leave it out: what needs {name} reads it from the environment, which jobs inherit"


def _secrets() -> Iterator[tuple[str, str]]:
    """Names and values of the environment's secrets."""
    for name, value in os.environ.items():
        if is_secret(name) and len(value) >= SHORTEST and not value.isalpha():
            yield name, value


def _texts_of(value: object, key: str) -> Iterator[tuple[str, str]]:
    """Every text of a configuration with the full name of its key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts_of(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _texts_of(item, key)

"""What the file of a choice, or the registry that has it, tells: its keys, its comments, and where it comes from."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import yaml
from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from statprune.config.compose import config_file
from statprune.config.config_sources import OWN
from statprune.config.reference_keys import leaves
from statprune.system.options import PlainValues


@dataclass(frozen=True)
class ChoiceFile:
    """One choice as it is written down.

    Attributes:
        values: by full name of the key, in the file's order, not resolved.
        based_on: other choices of the group that it changes.
        brings: choices of other groups that come with it: compensation=energy.
        comment: at the top of the file.
        comments: behind a key, by full name.
        origin: the plugin or the folder that has the file; empty where it is ours, Hydra's or a registry's.
    """

    values: PlainValues
    based_on: tuple[str, ...]
    brings: tuple[str, ...]
    comment: str
    comments: dict[str, str]
    origin: str


def choice_file(group: str, name: str) -> ChoiceFile:
    """The choice called ``name`` of a group.

    Raises:
        PluginError: its plugin can't be imported.
    """
    loaded = config_file(f"{group}/{name}")
    assert loaded is not None  # a choice of the group
    text = _text(loaded.path, f"{group}/{name}.yaml")
    package = loaded.header.get("package")
    prefix = "" if package == "_global_" else package or group.replace("/", ".")
    values = OmegaConf.to_container(loaded.config, resolve=False)
    assert isinstance(values, dict)
    comments = {f"{prefix}.{key}" if prefix else key: comment for key, comment in _comments_behind_keys(text)}
    return ChoiceFile(
        values=dict(leaves({str(key): value for key, value in values.items()}, prefix)),
        based_on=tuple(str(own.path) for own in _defaults(loaded) if isinstance(own, ConfigDefault)),
        brings=tuple(_brought(own, group) for own in _defaults(loaded) if isinstance(own, GroupDefault)),
        comment=_comment_at_top(text),
        comments=comments,
        origin=_origin(loaded),
    )


def _defaults(loaded: ConfigResult) -> list[InputDefault]:
    entries = loaded.defaults_list or []
    return [own for own in entries if not (isinstance(own, ConfigDefault) and own.path == "_self_")]


def _brought(default: GroupDefault, group: str) -> str:
    named = str(default.group)
    return f"{named[1:] if named.startswith('/') else f'{group}/{named}'}={default.value}"


def _text(path: str | None, name: str) -> str:
    """The text of a file in a folder or a package; empty where neither has it."""
    kind, _, place = (path or "").partition("://")
    if kind == "file":
        file = Path(place) / name
    elif kind == "pkg" and place:
        file = Path(str(files(place))) / name
    else:
        return ""
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _comment_at_top(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return " ".join(lines).strip()


def _comments_behind_keys(text: str) -> Iterator[tuple[str, str]]:
    """The keys of a file, with dots, and what stands behind their values on the same line."""
    lines = text.splitlines()

    def below(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, str]]:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            name = f"{prefix}.{key.value}" if prefix else str(key.value)
            if isinstance(value, yaml.MappingNode):
                yield from below(value, name)
            rest = lines[value.end_mark.line][value.end_mark.column :] if value.end_mark.line < len(lines) else ""
            if rest.strip().startswith("#"):
                yield name, rest.strip().removeprefix("#").strip()

    yield from below(yaml.compose(text, Loader=yaml.SafeLoader), "")


def _origin(loaded: ConfigResult) -> str:
    path = loaded.path or ""
    if path == OWN or loaded.provider in ("hydra", "registry"):
        return ""
    kind, _, place = path.partition("://")
    if kind == "file":
        return place
    try:
        return f"{loaded.provider} {metadata.version(loaded.provider)}"
    except metadata.PackageNotFoundError:
        return path if place else loaded.provider

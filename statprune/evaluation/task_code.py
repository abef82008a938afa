"""Code that the user's task YAMLs bring along: found before any of it runs, and kept from running in templates."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from unittest.mock import patch

import jinja2
import yaml
from jinja2 import nodes
from jinja2.sandbox import SandboxedEnvironment

OWN_TASKS = "statprune.experiments.tasks"  # the package whose YAMLs come with statprune
SWITCH = "if you trust it, set evaluation.trust_task_code=true"
HIDDEN = "_"  # what begins so is Python's own machinery


def code_problems(path: Path) -> list[str]:
    """Code that the YAMLs of a path would run, a sentence each; those of statprune and lm-eval may run theirs.

    Args:
        path: a task's YAML, or a folder of them; those that they include are read, too.
    """
    problems: dict[str, None] = {}
    for file in sorted(path.rglob("*.yaml")) if path.is_dir() else [path]:
        for reached in _with_included(file, {}):
            if not _is_installed(reached):
                problems.update(
                    dict.fromkeys(f"the task YAML {reached} {what}; {SWITCH}" for what in _code_in(reached))
                )
    return list(problems)


@contextmanager
def sandboxed(is_on: bool) -> Iterator[None]:
    """Render lm-eval's templates in Jinja's sandbox, which refuses Python's own machinery, or as lm-eval does.

    Each template is compiled once here, and not for each document as by lm-eval.
    """
    import lm_eval.utils

    environment = usual = lm_eval.utils.env
    if is_on:
        environment = SandboxedEnvironment(
            loader=usual.loader, undefined=usual.undefined, keep_trailing_newline=usual.keep_trailing_newline
        )
        environment.filters.update(usual.filters)
    compiled = lru_cache(maxsize=1024)(environment.from_string)
    with patch.object(lm_eval.utils, "env", environment), patch.object(environment, "from_string", compiled):
        yield


def _is_installed(file: Path) -> bool:
    """Whether a file came with statprune or lm-eval."""
    import lm_eval.tasks

    places = (Path(str(files(OWN_TASKS))), Path(lm_eval.tasks.__file__).parent)
    return any(file.resolve().is_relative_to(place.resolve()) for place in places)


def _with_included(file: Path, seen: dict[Path, None]) -> list[Path]:
    """A YAML and all those that it includes; what can't be read is left to whoever reads tasks."""
    file = file.resolve()
    if file in seen or not file.is_file():
        return list(seen)
    seen[file] = None
    root = _composed(file)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else []:
        if key.value == "include":
            for included in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                _with_included(file.parent / str(included.value), seen)
    return list(seen)


def _composed(file: Path) -> yaml.Node | None:
    """The tree of a YAML, from which nothing is made yet; None where it can't be read."""
    try:
        root: yaml.Node | None = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return root


def _code_in(file: Path) -> Iterator[str]:
    """What of a YAML would run code, each as the rest of a sentence."""
    for node in _nodes(_composed(file), set()):
        if node.tag.startswith(("!", "tag:yaml.org,2002:python/")):
            tag = node.tag if node.tag.startswith("!") else "!!" + node.tag.removeprefix("tag:yaml.org,2002:")
            yield f"runs code ({tag} {node.value if isinstance(node, yaml.ScalarNode) else ''}".rstrip() + ")"
        elif isinstance(node, yaml.ScalarNode) and (hidden := _hidden_name(node.value)) is not None:
            yield f"has a template that reaches into Python itself ({hidden})"
        elif isinstance(node, yaml.MappingNode):
            for metric in _foreign_metrics(node):
                yield f"names the metric {metric}, which lm-eval has not, and which comes as code from elsewhere"


def _nodes(node: yaml.Node | None, seen: set[int]) -> Iterator[yaml.Node]:
    """A node and all below it, each once: aliases may lead back."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    yield node
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for inner in child if isinstance(child, tuple) else (child,):
                yield from _nodes(inner, seen)


def _hidden_name(text: str) -> str | None:
    """The first attribute in a template that begins with an underscore, or None; the sandbox sees those built later."""
    if "{{" not in text and "{%" not in text:
        return None
    try:
        tree = jinja2.Environment().parse(text)
    except jinja2.TemplateError:  # lm-eval says so
        return None
    names = [node.attr for node in tree.find_all(nodes.Getattr)]
    constants = [item.arg for item in tree.find_all(nodes.Getitem)]
    constants += [argument for item in tree.find_all(nodes.Filter) if item.name == "attr" for argument in item.args]
    names += [node.value for node in constants if isinstance(node, nodes.Const) and isinstance(node.value, str)]
    return next((name for name in names if name.startswith(HIDDEN)), None)


def _foreign_metrics(node: yaml.MappingNode) -> Iterator[str]:
    """Metrics of a task's list that lm-eval has not, or is told not to take its own for."""
    import lm_eval.api.metrics
    from lm_eval.api.registry import metric_registry

    assert lm_eval.api.metrics  # it fills the registry
    lists = [value for key, value in node.value if key.value == "metric_list" and isinstance(value, yaml.SequenceNode)]
    for entry in [entry for value in lists for entry in value.value if isinstance(entry, yaml.MappingNode)]:
        named = {key.value: value.value for key, value in entry.value if isinstance(value, yaml.ScalarNode)}
        asks = str(named.get("hf_evaluate", "false")).lower() in ("true", "yes", "on")
        if isinstance(name := named.get("metric"), str) and (asks or name not in metric_registry):
            yield name

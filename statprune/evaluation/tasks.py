"""Which lm-eval tasks an evaluation runs: task sets, lm-eval's own names, folders of task YAMLs; all found and read."""

import difflib
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from statprune.errors import ConfigError, first_line
from statprune.evaluation.task_code import OWN_TASKS, code_problems, sandboxed
from statprune.evaluation.task_names import lm_eval_mentions, names_of_lm_eval
from statprune.evaluation.task_sets import expanded, set_metrics
from statprune.system.hub import hub_access

if TYPE_CHECKING:  # lm-eval takes seconds to import, and most runs need none of it
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager
    from typing_extensions import TypeIs

    Item: TypeAlias = Group | Task

FILE_READERS = ("json", "csv", "parquet", "arrow", "text", "xml", "webdataset", "imagefolder")  # of datasets


@dataclass(frozen=True)
class TaskOptions:
    """How tasks are asked.

    Attributes:
        metric: stands for each task that has it, if its set says none.
        num_fewshot: examples in each prompt; None: as each task defines.
        limit: documents of each task, at most; None: all.
        batch_size: requests per forward.
        add_bos_token: whether prompts begin with BOS; None: as the tokenizer does.
        chat_template: whether prompts are messages of a chat.
        trust_task_code: run code that task YAMLs of the user's bring along.
    """

    metric: str = "acc"
    num_fewshot: int | None = None
    limit: int | None = None
    batch_size: int = 16
    add_bos_token: bool | None = None
    chat_template: bool = False
    trust_task_code: bool = False


@dataclass(frozen=True)
class TaskSuite:
    """Tasks that are ready to run.

    Attributes:
        manager: lm-eval's index of tasks.
        items: lm-eval's tasks and groups in the order asked for, their documents read.
        is_sandboxed: whether their templates are kept from running code.
        metrics: the metric that stands for a task, where the set that it is from says one.
    """

    manager: "TaskManager"
    items: "list[Item]"
    is_sandboxed: bool = False
    metrics: Mapping[str, str] = field(default_factory=dict)

    @property
    def tasks(self) -> "list[Task]":
        """Every single task, groups taken apart."""
        return [task for item in self.items for task in (item.get_all_tasks() if is_group(item) else [item])]


def is_group(item: "Item") -> "TypeIs[Group]":
    """Whether lm-eval's object is a group of tasks."""
    return hasattr(item, "get_all_tasks")


def is_path(name: str) -> bool:
    """Whether a member of ``evaluation.tasks`` is a folder or a file, and not the name of a task."""
    return "/" in name or name.endswith(".yaml") or name in (".", "..")


def name_problems(names: Sequence[str]) -> list[str]:
    """What is wrong with ``evaluation.tasks`` as far as it shows without lm-eval, a sentence each."""
    problems = []
    for name in names:
        path = Path(name).expanduser()
        if is_path(name) and not path.exists():
            problems.append(f"evaluation.tasks has {name}, which does not exist; give a folder of task YAMLs")
        elif is_path(name) and path.is_file() and path.suffix != ".yaml":
            problems.append(f"evaluation.tasks has {name}, which is no .yaml file; give a task's YAML or its folder")
    single = expanded(names)
    twice = sorted({name for name in single if single.count(name) > 1})
    if twice:
        problems.append(f"evaluation.tasks has {', '.join(twice)} twice; name each task once")
    return problems


def load_tasks(names: Sequence[str], trust_code: bool = False) -> TaskSuite:
    """Find the tasks and read their documents.

    Args:
        names: task sets (see ``task_sets``), tasks, groups and tags of lm-eval, bundled, folders of task YAMLs.
        trust_code: run code that YAMLs of the user's bring along.

    Raises:
        ConfigError: a sentence for each name that is unknown, or whose task or data can't be loaded.
    """
    manager = _manager_for(names)
    problems: list[str] = []
    wanted: list[str] = []
    for name in expanded(names):
        if not is_path(name):
            wanted.append(name)
            continue
        yaml_problems, inside = _yaml_problems(_absolute(name)), _names_in(_absolute(name))
        if not trust_code and (code := code_problems(_absolute(name))):
            problems += code
            continue
        problems += yaml_problems
        wanted += inside
        if not (inside or yaml_problems):
            problems.append(f"evaluation.tasks has {name}, which holds no YAML of an lm-eval task; give another folder")
    items: list[Item] = []
    is_sandboxed = not trust_code and any(is_path(name) for name in names)
    with (
        hub_access() if _reads_hub(manager, wanted) else nullcontext(True) as online,
        sandboxed(is_sandboxed),
    ):
        for name in wanted:
            try:
                items += _load(manager, name, online)
            except ConfigError as error:
                problems += error.problems
    suite = TaskSuite(manager, items, is_sandboxed, set_metrics(names))
    loaded = [task.task_name for task in suite.tasks]
    twice = sorted({name for name in loaded if loaded.count(name) > 1})
    if twice:
        problems.append(f"evaluation.tasks leads to {', '.join(twice)} twice; name each task once")
    problems += [problem for task in suite.tasks if (problem := _unfit(task))]
    if problems:
        raise ConfigError(problems)
    return suite


def _absolute(name: str) -> Path:
    return Path(name).expanduser().resolve()


def _manager_for(names: Sequence[str]) -> "TaskManager":
    """lm-eval's index of our tasks, those of the folders that are named, and its own where one of them is named."""
    paths = [_absolute(name) for name in expanded(names) if is_path(name)]
    folders = tuple(dict.fromkeys(path if path.is_dir() else path.parent for path in paths))
    manager = _manager(folders, _stamps(folders), include_defaults=False)
    by_name = [name for name in expanded(names) if not is_path(name)]
    members = [name for task in manager.task_index for name in _below(manager.task_index, [task])]
    if not lm_eval_mentions(name for name in [*by_name, *members] if name not in manager.task_index):
        return manager
    return _manager(folders, _stamps(folders), include_defaults=True)


@lru_cache(maxsize=8)
def _manager(folders: tuple[Path, ...], stamps: tuple[int, ...], include_defaults: bool) -> "TaskManager":
    """lm-eval's index, which takes seconds with its own tasks; ``stamps`` tell whether a file has changed since."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(include_path=[str(files(OWN_TASKS)), *map(str, folders)], include_defaults=include_defaults)


def _stamps(folders: tuple[Path, ...]) -> tuple[int, ...]:
    """When each YAML was written."""
    return tuple(file.stat().st_mtime_ns for folder in folders for file in sorted(folder.rglob("*.yaml")))


def _names_in(path: Path) -> list[str]:
    """Tasks and groups of a folder, or of one file; tasks that a group has are not named again."""
    from lm_eval.tasks import TaskManager

    index = TaskManager(include_path=str(path if path.is_dir() else path.parent), include_defaults=False).task_index
    here = [
        name
        for name, entry in index.items()
        if entry.yaml_path is not None and (path.is_dir() or entry.yaml_path == path)
    ]
    grouped = {member for name in here for member in _below(index, [name]) if member != name}
    return [name for name in here if name not in grouped]


def _below(index: Mapping[str, Any], listed: object) -> list[str]:
    """Names of the tasks, tags and groups in a group's list, and of everything below them."""
    names: list[str] = []
    for member in listed if isinstance(listed, list) else []:
        if isinstance(member, dict) and isinstance(member.get("task"), list):  # a group written inside another
            names += _below(index, member["task"])
            continue
        if isinstance(member, dict):
            member = None if "dataset_path" in member else member.get("task")
        if isinstance(member, str):
            entry = index.get(member)
            inner = ((entry.cfg or {}).get("task") if entry.cfg else sorted(entry.tags)) if entry is not None else None
            names += [member, *_below(index, inner)]
    return names


def _yaml_problems(path: Path) -> list[str]:
    """What lm-eval would pass over without a word; a file without a task's name is an include, and no problem."""
    from lm_eval.tasks._yaml_loader import load_yaml

    problems: list[str] = []
    owners: dict[str, Path] = {}
    for file in sorted(path.rglob("*.yaml") if path.is_dir() else [path]):
        try:
            described = load_yaml(file, resolve_func=False)
        except Exception as error:
            problems.append(f"the task YAML {file} can't be read ({first_line(error)}); mend it or take it away")
            continue
        name = described.get("group") or described.get("task")
        if isinstance(name, str) and owners.setdefault(name, file) != file:
            problems.append(f"{owners[name]} and {file} both define {name}; rename one")
    return problems


def _reads_hub(manager: "TaskManager", names: list[str]) -> bool:
    """Whether a task's documents may come from the hub: not where all are files or made by the task's own code."""
    for name in _below(manager.task_index, names):
        entry = manager.task_index.get(name)
        if entry is None or entry.cfg is None or isinstance(entry.cfg.get("task"), list):
            continue
        path = entry.cfg.get("dataset_path")
        if path is None and entry.cfg.get("custom_dataset"):
            continue
        if path is None or not (path in FILE_READERS or Path(str(path)).exists()):
            return True
    return False


def _load(manager: "TaskManager", name: str, online: bool) -> "list[Item]":
    """The task, group or tagged tasks of a name.

    Raises:
        ConfigError: it is unknown or can't be loaded, in one sentence.
    """
    if name not in manager.task_index:
        near = difflib.get_close_matches(name, {*manager.all_tasks, *names_of_lm_eval()} - {name}, 1)
        hint = f"did you mean {near[0]}?" if near else "`lm-eval ls tasks` lists its tasks"
        folder = f" (for a folder, write ./{name})" if Path(name).is_dir() else ""
        lm_eval = f"lm-eval {version('lm_eval')}"
        raise ConfigError([f"evaluation.tasks has {name!r}, which {lm_eval} does not know{folder}; {hint}"])
    try:
        loaded = manager.load([name])
    except Exception as error:  # datasets, a YAML's own functions and lm-eval raise almost any type
        raise ConfigError([_load_problem(manager, name, error, online)]) from error
    inner = {member for group in loaded["groups"].values() for member in group.child_names}
    inner |= {task.task_name for group in loaded["groups"].values() for task in group.get_all_tasks()}
    top: list[Item] = [item for key, item in (loaded["groups"] | loaded["tasks"]).items() if key not in inner]
    return top


def _load_problem(manager: "TaskManager", name: str, error: Exception, online: bool) -> str:
    config = manager.task_index[name].cfg or {}
    unknown = [member for member in _below(manager.task_index, [name]) if member not in manager.task_index]
    if unknown:
        return f"the group {name} names {', '.join(unknown)}, which lm-eval does not know; mend its YAML"
    data = f" ({config['dataset_path']})" if config.get("dataset_path") else ""
    asks_for_code = (config.get("dataset_kwargs") or {}).get("trust_remote_code") and not config.get("custom_dataset")
    if "scripts are no longer supported" in str(error) or "trust_remote_code" in str(error):
        return (
            f"the task {name} needs a dataset{data} that comes with code of its own, which datasets "
            f"{version('datasets')} does not run; save its data as JSON or Parquet, and give a folder with a task YAML"
        )
    if not online and isinstance(error, OSError | ValueError):
        reason = "no network, and not in the local cache"
        if asks_for_code:
            reason += "; its YAML also asks to run the dataset's own code, which may not be possible"
        return f"the data{data} of the task {name} can't be loaded ({reason}); connect to the network, or leave it out"
    return f"the task {name} can't be loaded ({type(error).__name__}: {first_line(error)}); mend it, or leave it out"


def _unfit(task: "Task") -> str | None:
    """Why this task can't be run here, or None."""
    if getattr(task, "UNSAFE_CODE", False):
        return (
            f"the task {task.task_name} runs code that the model writes (unsafe_code), which is not done; leave it out"
        )
    if getattr(task, "MULTIMODAL", False):
        return f"the task {task.task_name} shows the model images or sound, not text alone; leave it out"
    return None

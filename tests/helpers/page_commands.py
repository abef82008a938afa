"""The commands of pages: carried out in this process on a tiny model, or only checked.

A page's commands run in order in one folder, which has what their placeholders name: MODEL and DENSE (models), RUN and
OTHER (finished runs, also below outputs/default), and the texts that they read.
"""

import argparse
import glob
import gzip
import importlib
import importlib.util
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from statprune.cli.arguments import SentenceParser
from statprune.cli.main import VERBS
from statprune.config.place import own_place, use_place
from statprune.errors import StatpruneError
from statprune.system.plugin_files import PLUGINS
from tests.helpers.commands import problems_of
from tests.helpers.pages import ROOT, Block, make_targets
from tests.helpers.verbs import verb

# what a page says of these is not what is run, once it is known that it could be
SMALL = {
    "model.path": "MODEL",
    "calibration.samples": "2",
    "calibration.seq_len": "32",
    "evaluation.seq_len": "32",
    "evaluation.max_windows": "2",
    "cache": "null",
}
ONLY_TELLS = {"--cfg", "-c", "--help", "-h", "--version", "--info", "-i"}
ASKS_TASKS = ("evaluation=full", "evaluation=zero_shot", "evaluation.tasks=")
OUTSIDE = {"cd", "export", "git", "hf", "ls", "pip", "source", "sbatch", "wandb", "cat"}  # not ours to run
WORDS = "The weight of a row is pruned where its score is low, and the sum of what is kept is what the row gives. "


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        line: its number in the page.
        words: as a shell would split them.
        mark: of its block.
    """

    line: int
    words: tuple[str, ...]
    mark: str

    def __str__(self) -> str:
        return f"line {self.line}: {shlex.join(self.words)}"


def commands_of(blocks: Iterable[Block]) -> Iterator[Command]:
    """The commands of a page's bash blocks, those of skipped ones left out."""
    for block in blocks:
        if block.language not in ("bash", "sh") or block.mark.startswith("skip"):
            continue
        text = re.sub(r"\\\n", "  ", block.text)  # a command may go on in the next line
        for number, line in enumerate(text.splitlines(), block.line):
            words: list[str] = []
            for word in [*shlex.split(line, comments=True), "&&"]:
                if word in ("&&", ";", "|", ">", ">>"):
                    if words:
                        yield Command(number, tuple(words), block.mark)
                    words = []
                    if word in ("|", ">", ">>"):
                        break
                else:
                    words.append(word)


def carry_out(command: Command, runs: bool = True) -> str | None:
    """Check a command, and run it; returns what is wrong with it, or None.

    Args:
        command: of a page.
        runs: False: it is only checked, as one that is marked compose always is.
    """
    environment = dict(word.split("=", 1) for word in command.words if re.match(r"[A-Z][A-Z0-9_]*=", word))
    words = [word for word in command.words if word.partition("=")[0] not in environment]
    if words[:3] == ["python", "-m", "statprune"]:
        words = words[2:]
    program, arguments = words[0], words[1:]
    if program == "statprune":
        with_files(arguments)
        return _statprune(expanded(arguments), runs and command.mark != "compose", environment)
    if program == "torchrun":
        return _composed(arguments[arguments.index("statprune") + 1 :])
    if program == "make":
        missing = {word for word in arguments if "=" not in word and not word.startswith("-")} - make_targets()
        return f"make has no {missing}" if missing else None
    if program in ("python", "python3"):
        return _python(arguments)
    return None if program in OUTSIDE else f"{program} is no program that pages may name: mark it with test: skip"


def _python(arguments: list[str]) -> str | None:
    if arguments[0] == "-m":
        name = arguments[1]
        return None if importlib.util.find_spec(name) is not None else f"there is no module {name}"
    return None if (ROOT / arguments[0]).exists() else f"there is no {arguments[0]}"


def _statprune(arguments: list[str], runs: bool, environment: dict[str, str]) -> str | None:
    problem = _composed(arguments, environment)
    if problem or not runs:
        return problem
    with _Environment(environment):
        try:
            status = verb(*smaller(arguments))
        except SystemExit as ended:
            status = 0 if ended.code is None else int(ended.code)
        finally:
            use_place(own_place())
    return f"exit status {status}" if status else None


class _Environment:
    """Set variables, and put back what the command has changed of ours."""

    def __init__(self, values: dict[str, str]):
        self._values = values

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in (PLUGINS, *self._values)}
        os.environ.update(self._values)

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _composed(arguments: list[str], environment: dict[str, str] | None = None) -> str | None:
    """What is wrong with a command as the page has it, without running it."""
    if arguments and arguments[0] in VERBS:
        module = importlib.import_module(VERBS[arguments[0]].module)
        parser = SentenceParser(prog="statprune", formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(parser)
        try:
            parser.parse_args(arguments[1:])
        except StatpruneError as error:
            return str(error)
        return None
    with _Environment(environment or {}):
        problems = problems_of(*arguments)
    return "; ".join(problems) or None


def smaller(arguments: list[str]) -> list[str]:
    """A command that does the same in a second."""
    if ONLY_TELLS & set(arguments):
        return arguments
    name = arguments[0] if arguments else ""
    kept = [word for word in arguments if word.partition("=")[0] not in SMALL]
    if name == "choose":
        return [*kept, *_small(arguments)]
    if name == "tables" and not {"--published", "--dry-run"} & set(arguments):
        if "--overrides" not in kept:
            return [*kept, "--overrides", *_small([])]
        own = kept.index("--overrides") + 1
        return [*kept[:own], *_small(arguments), *kept[own:]]
    if name in VERBS:
        return arguments
    flags = len(kept) - next((place for place, word in enumerate(reversed(kept)) if "=" in word), len(kept))
    return [*kept[:flags], *_small(arguments), *kept[flags:]]


def _small(arguments: list[str]) -> list[str]:
    small = dict(SMALL)
    if "evaluation=none" in arguments or "evaluation=zero_shot" in arguments:
        del small["evaluation.max_windows"], small["evaluation.seq_len"]
    given = [f"{key}={value}" for key, value in small.items()]
    if not any(word.startswith("tracking") for word in arguments):
        given.append("tracking=disabled")
    if any(word.startswith(ASKS_TASKS) for word in arguments):
        given.append("evaluation.limit=2")
    return given


def expanded(arguments: list[str]) -> list[str]:
    """Arguments with patterns of folders expanded, as a shell does it."""
    result = []
    for word in arguments:
        found = sorted(glob.glob(word)) if "*" in word and "=" not in word else []
        result += found or [word]
    return result


def with_files(arguments: list[str]) -> None:
    """Write the texts that a command reads, where they are not there."""
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    for part in ("calibration", "evaluation"):
        name = given.get(f"{part}.path", "").strip("'\"").replace("*", "one")
        if name and "://" not in name and not name.startswith(("/", "~")):
            _write_text(Path(name), given.get(f"{part}.field", "messages" if "chat" in name else "text"))


def _write_text(path: Path, field: str) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    text = WORDS * 40
    if ".jsonl" in path.suffixes:
        talk = [{"role": "user", "content": WORDS * 4}, {"role": "assistant", "content": WORDS * 4}]
        rows = [json.dumps({field: talk if field == "messages" else WORDS * 8}) for _ in range(8)]
        text = "\n".join(rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())

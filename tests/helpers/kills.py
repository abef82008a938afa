"""Kill commands at random moments, give them again until they end, and tell what is left of them."""

import hashlib
import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.helpers.command import processes_environment
from tests.helpers.runs import RunNumbers, numbers
from tests.helpers.warm import start_warm

PATIENCE = 300.0  # seconds for a command that is not killed
TORCHRUNS = 30.0  # seconds after which torchrun kills who does not end: one that waits in gloo sees no signal
BEYOND = 1.25  # a busy machine takes longer than the undisturbed command did, and its last moments count, too
NOTICING = 20.0  # seconds that the others of a killed process have to notice it by themselves
OF_TRACKING = "wandb"  # its folders are named after the time, and belong to each attempt


@dataclass(frozen=True)
class Command:
    """What is given in a shell, again and again.

    Attributes:
        overrides: of the command.
        processes: how many run it together, as under torchrun.
    """

    overrides: tuple[str, ...]
    processes: int = 1

    def start(self, folder: Path, log: Path) -> list[BaseProcess]:
        """Its processes, started; what they print is added to the log."""
        environments = processes_environment(self.processes) if self.processes > 1 else [{}]
        return start_warm(list(self.overrides), folder, log, log, environments)


@dataclass(frozen=True)
class Left:
    """What a command that ended leaves below its folder.

    Attributes:
        numbers: of its runs.
        weights: SHA-256 of the saved models' files.
        files: relative paths of all files.
    """

    numbers: dict[str, RunNumbers]
    weights: dict[str, str]
    files: set[str]


@dataclass
class Attempts:
    """How often a command was killed, and how often it ended in spite of it.

    Attributes:
        kills: at which share of an undisturbed command's time.
        ended: what each command left that was given until it ended.
        logs: what they printed.
    """

    kills: list[float] = field(default_factory=list)
    ended: list[Left] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)


def left(folder: Path) -> Left:
    """What is below a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {str(path.relative_to(folder)) for path in paths}
    shards = [path for path in paths if path.suffix == ".safetensors"]
    weights = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in shards}
    return Left(numbers(folder), weights, {name for name in files if OF_TRACKING not in Path(name).parts})


def undisturbed(command: Command, folder: Path) -> float:
    """Give the command once; returns the seconds that it took."""
    begin = time.monotonic()
    with tempfile.NamedTemporaryFile() as log:
        assert _code(command.start(folder, Path(log.name)), PATIENCE) == 0, Path(log.name).read_text()
    return time.monotonic() - begin


def killed(command: Command, base: Path, seconds: float, kills: int, source: random.Random) -> Attempts:
    """Kill the command so many times; each folder's command is given until it ends, and then a new folder's.

    Args:
        command: to be killed.
        base: of the folders.
        seconds: that an undisturbed command takes: kills are spread over them, and a quarter of them more.
        kills: how many.
        source: of the moments.
    """
    attempts = Attempts()
    while True:
        folder = base / str(len(attempts.ended))
        folder.mkdir()
        log = base / f"{folder.name}.log"
        while _survives(command, folder, log, seconds, kills, source, attempts) is False:
            pass
        attempts.ended.append(left(folder))
        attempts.logs.append(log.read_text())
        if len(attempts.kills) >= kills:
            return attempts


def _survives(
    command: Command, folder: Path, log: Path, seconds: float, kills: int, source: random.Random, attempts: Attempts
) -> bool:
    """Give the command once more; whether it ended by itself."""
    running = command.start(folder, log)
    if len(attempts.kills) < kills:
        share = source.random()
        victim = source.choice(running)
        victim.join(share * seconds * BEYOND)
        if victim.exitcode is None:
            victim.kill()
            attempts.kills.append(share)
            _end_others(running)
            return False
    code = _code(running, PATIENCE)
    assert code == 0, f"after kills at {attempts.kills}:\n{log.read_text()}"
    return True


def _end_others(running: Sequence[BaseProcess]) -> None:
    """The others notice that one is dead, or are told to end, as torchrun tells them: those that still wait for it."""
    _join(running, NOTICING)
    for process in running:
        if process.exitcode is None:
            process.terminate()
    _code(running, TORCHRUNS)


def _join(running: Sequence[BaseProcess], patience: float) -> None:
    end = time.monotonic() + patience
    for process in running:
        process.join(max(0.0, end - time.monotonic()))


def _code(running: Sequence[BaseProcess], patience: float) -> int:
    """The first exit status that is not 0; processes that hang are killed."""
    _join(running, patience)
    for process in running:
        if process.exitcode is None:
            process.kill()
            process.join()
    return next((process.exitcode for process in running if process.exitcode), 0)


def kills_wanted(by_default: int) -> int:
    """How many kills of each kind; ``make kills`` sets it."""
    return int(os.environ.get("STATPRUNE_KILLS", by_default))

"""``statprune VERB …``; without a verb, Hydra's grammar: a run, or a sweep with ``-m``."""

import argparse
import atexit
import difflib
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from statprune.cli.arguments import SentenceParser
from statprune.cli.interrupts import interrupts
from statprune.cli.problems import print_problems, report_problems

PIPE_CLOSED = 141  # exit status as shells name it: 128 + the signal's number


@dataclass(frozen=True)
class Verb:
    """One verb of the command.

    Attributes:
        help: what it does, for the list of verbs.
        module: has ``EXAMPLE``, ``add_arguments`` and ``run``; imported when the verb is used.
    """

    help: str
    module: str


class VerbModule(Protocol):
    """What a verb's module has."""

    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Describe the verb's arguments."""

    def run(self, options: argparse.Namespace) -> int:
        """Carry the verb out; returns the exit status."""


VERBS = {
    "tables": Verb("plan tables, run what is missing, and build them", "statprune.cli.tables"),
    "report": Verb("make one page about a folder of runs", "statprune.cli.report"),
    "compare": Verb("print what runs differ in, and how much their numbers do", "statprune.cli.compare"),
    "channels": Verb("draw what Wanda's and CVR's scores make of a matrix's input channels", "statprune.cli.channels"),
    "choose": Verb("say which method suits a model, with the evidence", "statprune.cli.choose"),
    "inspect": Verb(
        "count a checkpoint's zeros and N:M patterns, and what differs from a dense one", "statprune.cli.inspect"
    ),
    "verify": Verb("check a run's saved model against its record", "statprune.cli.verify"),
    "bench": Verb("time a model on this machine, dense and in the sparse forms that there are", "statprune.cli.bench"),
    "compress": Verb("store a sparse model's matrices as bits and kept values", "statprune.cli.compress"),
    "decompress": Verb("make a compressed model dense again, bit for bit", "statprune.cli.decompress"),
    "push": Verb("send a run's saved model to the Hugging Face hub", "statprune.cli.push"),
    "options": Verb("show every group, choice and key with its meaning and default", "statprune.cli.options"),
    "init": Verb("make a package of your own scores, compensations, allocations and texts", "statprune.cli.init"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command; returns its exit status.

    Args:
        arguments: without the program's name; None: those of the process.
    """
    interrupts.leave_at_once()  # while modules are imported
    output, sys.stdout = sys.stdout, PipedOutput(sys.stdout)
    try:
        status = _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BaseException as error:
        if not interrupts.arrived and not isinstance(error, KeyboardInterrupt):
            raise
        if os.environ.get("RANK", "0") == "0":  # which alone knows what was kept; all processes get the signal
            print(f"statprune: {_after_interruption(error)}", file=sys.stderr)
        status = interrupts.status
    finally:
        interrupts.leave_at_once()  # while Python shuts down
        sys.stdout = output
    if interrupts.arrived and arguments is None:
        _end_process(status)
    return status


def _end_process(status: int) -> NoReturn:
    """End the process as Python does, except that memory is left to the system: to take it apart may take seconds."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads and workers, as Python does first
    atexit._run_exitfuncs()
    with suppress(OSError):  # whoever read them has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _after_interruption(error: BaseException) -> str:
    """How the command ended, and how to go on."""
    words = error.args[1] if isinstance(error, KeyboardInterrupt) and len(error.args) > 1 else "interrupted"
    words = f"interrupted by {interrupts.name}" if words == "interrupted" else words
    return words if "again" in words else f"{words}; start the same command again to go on"


class PipedOutput:
    """Standard output that ends the process without a traceback where its reader has gone, as ``head`` does.

    Args:
        stream: the output itself.
    """

    def __init__(self, stream: Any):  # noqa: ANN401 - a text stream of any kind
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text."""
        try:
            written: int = self._stream.write(text)
        except BrokenPipeError:
            self._leave()
        return written

    def flush(self) -> None:
        """Hand over what was written."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def _leave(self) -> NoReturn:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # for what Python flushes at its end
        raise SystemExit(PIPE_CLOSED) from None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if first in VERBS:
        return _run_verb(first, arguments[1:])
    if "--version" in arguments:
        from statprune.cli.version import print_version

        return print_version(arguments)
    if first.isidentifier():  # Hydra's overrides have an equals sign, and its flags begin with a dash
        return _unknown_verb(first)
    from statprune.cli.run import run_hydra

    return run_hydra(arguments)


def _run_verb(name: str, arguments: list[str]) -> int:
    verb = VERBS[name]
    module: VerbModule = importlib.import_module(verb.module)
    parser = SentenceParser(
        prog=f"statprune {name}",
        description=verb.help[0].upper() + verb.help[1:] + ".",
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)

    def run() -> int:
        if "" in arguments:  # as a path it would be the working folder
            parser.error("an argument is empty, as that of a shell's variable that is not set")
        return module.run(parser.parse_args(arguments))

    return report_problems(run)


def _unknown_verb(name: str) -> int:
    near = difflib.get_close_matches(name, VERBS, 1)
    hint = f"did you mean statprune {near[0]}?" if near else f"the verbs are {', '.join(VERBS)}"
    return print_problems([f"{name} is neither a verb nor key=value; {hint}"])

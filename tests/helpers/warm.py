"""Run the command in forks of a process that has imported its libraries: importing them takes longer than a tiny run.

Nothing of ours is imported beforehand, and each fork has its own folder and files, as a command in a shell has.
"""

import atexit
import gc
import multiprocessing
import os
import runpy
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

LIBRARIES = [
    "torch",
    "datasets",
    "hydra.main",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
]
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(LIBRARIES)


def run_warm(arguments: list[str], folder: Path, timeout: float, ranks: list[dict[str, str]]) -> CompletedProcess:
    """``python -m statprune ARGUMENTS`` in a folder, as `subprocess.run` does it.

    Args:
        ranks: what each process has in its environment beside ours; one process for each, which end together.
    """
    with tempfile.TemporaryDirectory() as outputs:
        out, err = (Path(outputs) / name for name in ("out", "err"))
        processes = start_warm(arguments, folder, out, err, ranks)
        end = time.monotonic() + timeout
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
        if any(process.exitcode is None for process in processes):
            for process in processes:
                process.kill()
            raise TimeoutExpired(arguments, timeout, out.read_bytes(), err.read_bytes())
        code = next((process.exitcode for process in processes if process.exitcode), 0)
        return CompletedProcess(arguments, code, out.read_text(), err.read_text())


class WarmSweep:
    """Stands for `subprocess.Popen` of ``python -m statprune …``; what it prints comes when it has ended."""

    def __init__(self, command: list[str], stdout: object = None) -> None:
        assert command[:3] == [sys.executable, "-m", "statprune"] and stdout is None
        self._arguments = command[3:]

    def __enter__(self) -> "WarmSweep":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self) -> int:
        done = run_warm(self._arguments, Path.cwd(), 300, [{}])
        for stream, text in ((1, done.stdout), (2, done.stderr)):
            os.write(stream, text.encode())
        return done.returncode


def start_warm(
    arguments: list[str], folder: Path, out: Path, err: Path, ranks: list[dict[str, str]]
) -> list[BaseProcess]:
    """The same, without waiting for the end; what the processes print is added to the files."""
    processes: list[BaseProcess] = [
        _server.Process(target=_command, args=(arguments, str(folder), str(out), str(err), os.environ | rank))
        for rank in ranks
    ]
    for process in processes:
        process.start()
    return processes


def _command(arguments: list[str], folder: str, out: str, err: str, environment: dict[str, str]) -> None:
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["statprune", *arguments]
    gc.freeze()  # what is imported already is not looked through again
    try:
        runpy.run_module("statprune", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves without them

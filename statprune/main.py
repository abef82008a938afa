"""The command: compose the config, run, print the summary."""

import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
import torch
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf

from statprune.compose import override_problems, prefer_own_presets
from statprune.config import parse_config
from statprune.console import configure_logging
from statprune.distributed import rank, stop
from statprune.errors import ConfigError, StatpruneError
from statprune.slots import take_gpu


def run_name(*, _root_: DictConfig) -> str:
    """Readable name of a run's folder: model, calibration, pattern, method, compensation, seed."""
    model = Path(str(_root_.model.path)).name.removesuffix(".gguf")
    parts = [
        model,
        _root_.calibration.source,
        _pattern_name(_root_),
        _root_.method.name,
        _root_.compensation.name,
        f"s{_root_.seed}",
    ]
    return re.sub(r"[^\w.-]", "-", "_".join(map(str, parts)))


def _pattern_name(config: DictConfig) -> str:
    sparsity = config.sparsity
    if config.method.name == "dense":
        return "dense"
    if sparsity.keep is not None:
        return f"{sparsity.keep}_{sparsity.of}"
    if sparsity.layer_ratios is not None:
        return "given"
    ratio = 0.5 if sparsity.ratio is None else sparsity.ratio
    return str(ratio) if sparsity.allocation == "uniform" else f"{sparsity.allocation}{ratio}"


OmegaConf.register_new_resolver("run_name", run_name, replace=True)
OmegaConf.register_new_resolver("visible_gpus", lambda: max(1, torch.cuda.device_count()), replace=True)
OmegaConf.register_new_resolver("gpus_per_job", lambda: min(1, torch.cuda.device_count()), replace=True)

_in_command = False  # cli runs in this process; not so in the processes that a launcher starts for its jobs


class JobError(CompactHydraException):
    """What went wrong in another process's job; Hydra prints just the message where the sweep was started."""


@hydra.main(version_base="1.3", config_path="pkg://statprune.conf", config_name="config")
def main(composed: DictConfig) -> float | None:
    """Hydra's entry point for one job; returns what a sweeper minimises: the first dataset's perplexity."""
    raw: Any = OmegaConf.to_container(composed, resolve=True)
    try:
        config = parse_config(raw)
        from statprune.run import run  # slow to import: not for --help or a typo
        from statprune.summary import print_summary

        configure_logging(config.settings.verbose, quiet=rank() > 0)
        _set_up_worker()
        folder = Path(HydraConfig.get().runtime.output_dir)
        record = run(config, folder)
        if rank() == 0:
            print_summary(record, folder)
        return next((each["pruned"] for each in record["metrics"]["perplexity"].values()), None)
    except ConfigError as error:
        _fail(error.problems if rank() == 0 else [])  # every process finds the same
    except StatpruneError as error:
        _fail([str(error)])
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        _fail([f"the GPU's memory is too small ({reason}); lower the batch sizes, or choose offload=cpu or disk"])


def _set_up_worker() -> None:
    if not _in_command and HydraConfig.get().launcher._target_.endswith(".JoblibLauncher"):
        take_gpu()  # Slurm and Ray give a job its own


def _fail(problems: list[str]) -> NoReturn:
    if not _in_command:  # launchers wait for a result, or run the job again, where its process just ends
        raise JobError("\n".join(f"statprune: {problem}" for problem in problems))
    for problem in problems:
        print(f"statprune: {problem}", file=sys.stderr)
    raise SystemExit(1)


def cli() -> None:
    """Console script ``statprune``; ``python -m statprune`` is the same."""
    global _in_command
    _in_command = True
    arguments = sys.argv[1:] = [_quote_pattern(argument) for argument in sys.argv[1:]]
    given = get_args_parser().parse_known_args(arguments)[0]
    prefer_own_presets()
    if not (given.help or given.hydra_help or given.info or given.shell_completion):
        problems = override_problems(given.overrides, given.multirun)
        if not (problems or given.cfg):
            problems = folder_problems(given.overrides)
        if problems:
            _fail(problems if rank() == 0 else [])
    # torchrun, Slurm and kill end a process so: leave nothing temporary behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with _own_folder():
        main()
    stop()


@contextmanager
def _own_folder() -> Iterator[None]:
    """Give torchrun's other processes a folder each, which goes with them: the first one's holds the run."""
    if rank() == 0:
        yield
        return
    with tempfile.TemporaryDirectory(dir=".", prefix=".statprune-") as made:
        folder = os.path.relpath(made)  # short and plain, whatever the names above it
        sys.argv += [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", "hydra.output_subdir=null"]
        yield


def folder_problems(overrides: list[str]) -> list[str]:
    """Whether the folder that runs are written to can be made, in a sentence; Hydra itself ends in a traceback."""
    named = [override.partition("=")[2] for override in overrides if re.match(r"hydra\.(run|sweep)\.dir=", override)]
    folder = Path(named[-1].strip("'\"") if named else "outputs")
    if "${" in str(folder):
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return [
            f"the folder {folder} can't be written ({error.strerror}); run elsewhere, or give another hydra.run.dir"
        ]
    if (folder / "result.json").exists():
        return [f"the folder {folder} holds a finished run; give another hydra.run.dir, or move that run away"]
    return []


def _quote_pattern(argument: str) -> str:
    """``sparsity=2_4`` with the choice quoted: Hydra reads a bare 2_4 as the number 24."""
    if not argument.startswith("sparsity="):
        return argument
    return re.sub(r"(?<=[=,])(\d+_\d+)(?=,|$)", r"'\1'", argument)


if __name__ == "__main__":
    cli()

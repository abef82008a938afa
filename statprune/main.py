"""The command: compose the config, run, print the summary."""

import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from statprune.compose import override_problems
from statprune.config import parse_config
from statprune.console import configure_logging
from statprune.errors import ConfigError, StatpruneError


def run_name(*, _root_: DictConfig) -> str:
    """Readable name of a run's folder: model, calibration, pattern, method, compensation, seed."""
    model = Path(str(_root_.model.path)).name.removesuffix(".gguf")
    sparsity = _root_.sparsity
    pattern = f"{sparsity.keep}_{sparsity.of}" if sparsity.keep is not None else str(sparsity.ratio or 0.5)
    parts = [
        model,
        _root_.calibration.source,
        pattern,
        _root_.method.name,
        _root_.compensation.name,
        f"s{_root_.seed}",
    ]
    return re.sub(r"[^\w.-]", "-", "_".join(map(str, parts)))


OmegaConf.register_new_resolver("run_name", run_name, replace=True)


@hydra.main(version_base="1.3", config_path="pkg://statprune.conf", config_name="config")
def main(composed: DictConfig) -> None:
    """Hydra's entry point for one job."""
    raw: Any = OmegaConf.to_container(composed, resolve=True)
    try:
        config = parse_config(raw)
        from statprune.run import run  # slow to import: not for --help or a typo
        from statprune.summary import print_summary

        configure_logging(config.settings.verbose)
        folder = Path(HydraConfig.get().runtime.output_dir)
        print_summary(run(config, folder), folder)
    except ConfigError as error:
        _fail(error.problems)
    except StatpruneError as error:
        _fail([str(error)])


def _fail(problems: list[str]) -> None:
    for problem in problems:
        print(f"statprune: {problem}", file=sys.stderr)
    raise SystemExit(1)


def cli() -> None:
    """Console script ``statprune``; ``python -m statprune`` is the same."""
    arguments = sys.argv[1:] = [_quote_pattern(argument) for argument in sys.argv[1:]]
    if not any(argument.startswith("-") for argument in arguments):  # one plain job, no --help, no sweep
        problems = override_problems(arguments)
        if problems:
            _fail(problems)
    main()


def _quote_pattern(argument: str) -> str:
    """``sparsity=2_4`` with the choice quoted: Hydra reads a bare 2_4 as the number 24."""
    if not argument.startswith("sparsity="):
        return argument
    return re.sub(r"(?<=[=,])(\d+_\d+)(?=,|$)", r"'\1'", argument)


if __name__ == "__main__":
    cli()

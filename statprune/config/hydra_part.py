"""Hydra's own part of a configuration, composed by Hydra itself where a command or a file changes it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from statprune.config.compose import compose, quote_pattern
from statprune.config.composing import composing_problem
from statprune.config.place import current_place
from statprune.config.resolvers import register_resolvers
from statprune.config.run_folder import folder_name_problem
from statprune.config.secrets import environment_problems
from statprune.errors import StatpruneError, first_line


def hydra_part_problems(job: Sequence[str], is_sweep: bool) -> list[str]:
    """What is wrong with Hydra's own part, in sentences; nothing is composed where nobody changes it.

    Args:
        job: overrides of one job, which are no lists of values any more.
        is_sweep: the job is one of a sweep.
    """
    own = [override for override in job if override.lstrip("+~").startswith(("hydra.", "hydra/"))]
    if not own and _plain(compose(job).hydra) == _plain(compose().hydra):
        return []
    try:
        whole = _composed(job)
    except (HydraException, OmegaConfBaseException, StatpruneError) as error:
        return [composing_problem(error)]
    except (AssertionError, AttributeError, TypeError, ValueError) as error:  # Hydra's own way to refuse a value
        return [f"Hydra can't compose its own part ({first_line(error)}); leave out what sets {', '.join(own)}"]
    except KeyError as error:
        return [f"hydra.job.env_copy names {first_line(error)}, which the environment does not have; leave it out"]
    try:
        with _in_hydra(whole):
            return _mode_problems(whole, is_sweep) or _value_problems(whole.hydra, is_sweep)
    except (HydraException, OmegaConfBaseException, StatpruneError) as error:
        return [composing_problem(error)]


def _plain(hydra: DictConfig) -> object:
    return OmegaConf.to_container(hydra, resolve=False)


def _composed(job: Sequence[str]) -> DictConfig:
    place = current_place()
    JobRuntime.instance().set("name", "statprune")  # Hydra sets it again
    setup_globals()
    register_resolvers()
    # as one run, whose overrides list no values; the mode is looked at afterwards
    quoted = [quote_pattern(override) for override in job]
    return ConfigLoaderImpl(place.search_path()).load_configuration(place.name, quoted, RunMode.RUN)


@contextmanager
def _in_hydra(whole: DictConfig) -> Iterator[None]:
    """What resolvers see of Hydra while a job runs."""
    before = HydraConfig.instance().cfg
    with open_dict(whole.hydra):
        whole.hydra.job.id, whole.hydra.job.num = "0", 0
        whole.hydra.runtime.output_dir = "outputs"
    HydraConfig.instance().set_config(whole)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def _mode_problems(whole: DictConfig, is_sweep: bool) -> list[str]:
    mode = whole.hydra.mode
    if mode is None or (mode is RunMode.MULTIRUN) == is_sweep:
        return []
    return [f"hydra.mode={mode.name} does not go with this command; leave it out, and add -m for a sweep"]


def _value_problems(hydra: DictConfig, is_sweep: bool) -> list[str]:
    keys = ("sweep.dir", "sweep.subdir") if is_sweep else ("run.dir",)
    if found := environment_problems(hydra.job):
        return found
    problems: list[str | None] = [folder_name_problem(f"hydra.{key}", OmegaConf.select(hydra, key)) for key in keys]
    if not isinstance(hydra.verbose, bool | str) and not OmegaConf.is_list(hydra.verbose):
        problems.append(f"hydra.verbose={hydra.verbose} is neither true, false nor names of loggers; give one of them")
    for key in ("job_logging", "hydra_logging"):
        if hydra[key] is None or not OmegaConf.is_dict(hydra[key]):
            problems.append(f"hydra.{key}={hydra[key]} holds no configuration of Python's logging; leave it out")
    size = OmegaConf.select(hydra, "sweeper.max_batch_size")
    if size is not None and (not isinstance(size, int) or size < 1):
        problems.append(f"hydra.sweeper.max_batch_size={size} is no number of jobs; give 1 or more")
    for key in ("sweeper", "launcher", "job", "job_logging", "hydra_logging", "callbacks"):
        if OmegaConf.is_config(hydra[key]):
            OmegaConf.to_container(hydra[key], resolve=True)  # as Hydra does once a job runs
    return [problem for problem in problems if problem]

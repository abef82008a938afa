"""Which way of pruning suits a model and a pattern: all candidates on some blocks, then the best two whole."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from statprune.config.checks import parse_config
from statprune.config.compose import compose, plain_values
from statprune.config.schema import RunConfig
from statprune.data.windows import calibration_windows, evaluation_windows
from statprune.errors import ConfigError
from statprune.experiments.reproduce import Job, job_of, override_sentences
from statprune.model.loading import check_length, check_tokens, open_model
from statprune.pruning.allocation import check_pattern
from statprune.pruning.trial import Trials, tried_blocks, try_ways
from statprune.system.console import waiting
from statprune.system.devices import choose_device
from statprune.system.timing import time_on
from statprune.walk.discover import find_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CANDIDATES = Path(str(files("statprune.experiments"))) / "candidates.yaml"
DECIDED = ("method", "refinement", "compensation", "experiment")  # what a choice is between
NAME = "name=choose"  # of the whole runs, unless the user gives another
WINDOWS = 8  # of the calibration, for the trial; as many as a third of them more judge the outputs


@dataclass(frozen=True)
class Candidate:
    """One way of pruning.

    Attributes:
        label: what it is called.
        overrides: of its run.
        config: of its run; None where it can't have this pattern.
        problem: why it can't, in a sentence; None: it can.
    """

    label: str
    overrides: tuple[str, ...]
    config: RunConfig | None
    problem: str | None = None


@dataclass(frozen=True)
class Ranked:
    """A candidate after the trial.

    Attributes:
        candidate: the way of pruning.
        error: geometric mean of its matrices' relative output errors on unseen windows; NaN: it was not tried.
        seconds: predicted for pruning the whole model; None: unknown.
        remark: why it is out, in words; None: it is in.
    """

    candidate: Candidate
    error: float
    seconds: float | None
    remark: str | None


@dataclass(frozen=True)
class TrialResult:
    """The candidates in the order of their errors, those that are out at the end.

    Attributes:
        ranked: all of them.
        blocks: numbers of the blocks that were tried.
        spent: seconds that the trial took, loading included.
        finalists: those to be run whole, at most two, the better first.
    """

    ranked: list[Ranked]
    blocks: tuple[int, ...]
    spent: float
    finalists: list[Ranked] = field(default_factory=list)


def read_candidates(path: Path = CANDIDATES) -> dict[str, list[str]]:
    """Candidates' overrides by label.

    Raises:
        ConfigError: the file can't be read, or is not a list of overrides for each label.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError([f"the candidates {path} can't be read ({' '.join(str(error).split())}); mend it"]) from error
    is_right = isinstance(content, dict) and all(
        isinstance(label, str) and isinstance(own, list) and all(isinstance(each, str) for each in own)
        for label, own in content.items()
    )
    if not is_right or not content:
        raise ConfigError([f"{path} names no candidates; write lines such as Wanda: [method=wanda, compensation=none]"])
    return dict(content)


def candidates_of(described: Mapping[str, Sequence[str]], given: Sequence[str]) -> list[Candidate]:
    """The candidates for what the user gave.

    Args:
        described: overrides by label.
        given: the user's overrides, which all candidates have.

    Raises:
        ConfigError: the user decides what is to be chosen, or an override is wrong, for all candidates alike.
    """
    for override in given:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] in DECIDED:
            raise ConfigError([f"{override} decides what is to be chosen; leave it out, or give your own --candidates"])
    candidates = [_candidate(label, own, given) for label, own in described.items()]
    if all(each.problem is not None for each in candidates):
        problems = [each.problem for each in candidates if each.problem is not None]
        raise ConfigError(list(dict.fromkeys(problems)))
    return candidates


def _candidate(label: str, own: Sequence[str], given: Sequence[str]) -> Candidate:
    overrides = (*own, NAME, *given)
    try:
        config = parse_config(plain_values(compose(overrides).config))
    except ConfigError as error:
        return Candidate(label, overrides, None, "; ".join(error.problems))
    except (HydraException, OmegaConfBaseException) as error:
        return Candidate(label, overrides, None, "; ".join(override_sentences(overrides, error)))
    if config.is_dense or config.spread is not None:
        what = "prunes nothing" if config.is_dense else "spreads the ratio, which errors of single matrices can't judge"
        return Candidate(label, overrides, None, f"it {what}")
    return Candidate(label, overrides, config)


def try_candidates(candidates: Sequence[Candidate], budget: float) -> TrialResult:
    """Try all candidates on some blocks of the dense model, and say which two are to be run whole.

    Args:
        candidates: at least one of which has a configuration.
        budget: seconds for everything.

    Raises:
        StatpruneError: the model or the text can't be used as asked.
    """
    configs = {each.label: each.config for each in candidates if each.config is not None}
    config = next(iter(configs.values()))
    device = choose_device(config.settings.device)
    start = time_on(device)
    with waiting(f"loading {config.model.source.path}"):
        loaded = open_model(config.model.source, str(device), config.settings.offload.value, Path("outputs", "choose"))
    try:
        options, seed = config.calibration, config.settings.seed
        check_length(loaded.model, options.seq_len, f"calibration.seq_len={options.seq_len}")
        fitted = min(WINDOWS, options.samples)
        unseen = max(1, fitted // 3)
        arguments = (options.seq_len, seed, options.path, options.field)
        ids = calibration_windows(loaded.tokenizer, options.source, fitted + unseen, *arguments).ids
        check_tokens(loaded.model, ids)
        blocks = find_blocks(loaded, ids, config.model.exclude, config.model.prune_routers)
        check_pattern(blocks, config.pattern.value)
        tokens = _evaluated_tokens(config, loaded.tokenizer)

        def give_up(seconds: Mapping[str, float]) -> set[str]:
            return too_slow(seconds, budget - (time_on(device) - start))

        specs = {label: own.spec for label, own in configs.items()}
        with waiting(f"trying {len(specs)} candidates on {len(tried_blocks(len(blocks)))} blocks"):
            trials = try_ways(loaded.model, blocks, ids[:fitted], ids[fitted:], specs, options.samples, give_up)
    finally:
        loaded.close()
    spent = time_on(device) - start
    ranked = rank_candidates(candidates, trials)
    evaluating = 3 * tokens * trials.forward  # the dense model, and both finalists
    finalists = finalists_of(ranked, budget - spent - evaluating)
    return TrialResult(ranked, trials.blocks, spent, finalists)


def _evaluated_tokens(config: RunConfig, tokenizer: "PreTrainedTokenizerBase") -> int:
    """How many tokens each whole run is measured on."""
    own = config.evaluation
    return sum(
        evaluation_windows(
            tokenizer, source, own.seq_len, own.max_windows, own.path_of(source), own.field_of(source)
        ).ids.numel()
        for source in own.datasets
    )


def too_slow(seconds: Mapping[str, float], left: float) -> set[str]:
    """Candidates whose whole runs would not fit into what is left of the budget."""
    return {label for label, own in seconds.items() if own > left}


def rank_candidates(candidates: Sequence[Candidate], trials: Trials) -> list[Ranked]:
    """Candidates by their errors; those that are out come last."""
    ranked = []
    for each in candidates:
        trial = trials.ways.get(each.label)
        if trial is None:
            ranked.append(Ranked(each, math.nan, None, each.problem))
            continue
        remark = trial.problem or ("too slow for this budget" if trial.given_up else None)
        remark = remark or (None if math.isfinite(trial.error) else "its outputs are not finite")
        ranked.append(Ranked(each, trial.error, trials.seconds.get(each.label), remark))
    return sorted(ranked, key=lambda own: (own.remark is not None, own.error if math.isfinite(own.error) else 0))


def finalists_of(ranked: Sequence[Ranked], left: float) -> list[Ranked]:
    """The best two whose whole runs fit, one after the other, into the seconds that are left."""
    finalists: list[Ranked] = []
    for each in ranked:
        if each.remark is None and each.seconds is not None and each.seconds <= left and len(finalists) < 2:
            finalists.append(each)
            left -= each.seconds
    return finalists


def jobs_of_finalists(finalists: Sequence[Ranked]) -> list[Job]:
    """The finalists' whole runs.

    Raises:
        StatpruneError: a folder holds another run.
    """
    return [job_of(each.candidate.overrides, each.seconds or 0.0) for each in finalists]

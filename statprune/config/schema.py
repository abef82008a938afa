"""Every option: name, type, default, unit; and the checks that need no model. All problems are reported together."""

import functools
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from enum import Enum
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from statprune.config.naming import NOT_IN_HASH, digest
from statprune.core.compensation import Compensation, Energy
from statprune.core.methods import customary_group, method_names, options_class
from statprune.core.moments import Moments
from statprune.core.patterns import Group, NofM, Pattern, Unstructured
from statprune.core.sparsegpt import SparseGPTOptions
from statprune.data.sources import SOURCES, source_problem
from statprune.errors import ConfigError
from statprune.evaluate.tasks import name_problems
from statprune.pruning.allocation import Owl
from statprune.system.hub import model_path_problem, offload_problem
from statprune.walk.activations import Place

COMPENSATIONS: dict[str, Any] = {cls.name: cls for cls in (Energy, Moments)}
# keys that mean nothing where no task is run
OF_TASKS = ("tasks", "metric", "num_fewshot", "limit", "task_batch_size", "add_bos_token", "chat_template")


class Dtype(Enum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class AllocationName(Enum):
    uniform = "uniform"
    owl = "owl"


class Propagation(Enum):
    pruned = "pruned"
    sequential = "sequential"
    dense = "dense"


class Offload(Enum):
    none = "none"
    cpu = "cpu"
    disk = "disk"


@dataclass
class ModelConfig:
    """Which model: hub id, local folder, .gguf file or pkg://package/file; and which of its matrices stay dense.

    ``exclude`` holds regular expressions to be found in a matrix's full name.
    """

    path: str = ""
    dtype: Dtype = Dtype.auto
    revision: str | None = None
    trust_remote_code: bool = False
    exclude: list[str] = field(default_factory=list)
    prune_routers: bool = False


@dataclass
class CalibrationConfig:
    """Calibration windows; seq_len in tokens, batch_size in windows (None: as many as keep the device busy).

    An expert that fewer than ``min_expert_tokens`` tokens reach is pruned with the statistics of its mixture.
    """

    source: str = "bundled"
    samples: int = 128
    seq_len: int = 2048
    batch_size: int | None = None
    path: str | None = None
    min_expert_tokens: int = 32


@dataclass
class SparsityConfig:
    """Either ratio (unstructured, 0.5 where nothing is given) or keep and of (N:M).

    An unstructured ratio can be spread over the blocks by OWL (``outlier_threshold`` and ``max_deviation`` are its
    parameters), or be given layer by layer: ``layer_ratios`` is a list, one per block, or {regular expression: ratio}.
    """

    ratio: float | None = None
    group: Group | None = None
    keep: int | None = None
    of: int | None = None
    allocation: AllocationName = AllocationName.uniform
    outlier_threshold: float | None = None
    max_deviation: float | None = None
    layer_ratios: Any = None


@dataclass
class EvaluationConfig:
    """Perplexity: datasets, window length in tokens, how many windows (None: all). Accuracy: lm-eval's tasks.

    ``metric`` stands for each task that has it; ``num_fewshot`` None is as each task defines, ``limit`` None all
    documents, ``task_batch_size`` requests per forward, ``add_bos_token`` None as the tokenizer does.
    """

    name: str = "perplexity"
    datasets: list[str] = field(default_factory=list)
    seq_len: int = 2048
    max_windows: int | None = None
    batch_size: int = 4
    path: str | None = None
    tasks: list[str] = field(default_factory=list)
    metric: str = "acc"
    num_fewshot: int | None = None
    limit: int | None = None
    task_batch_size: int = 16
    add_bos_token: bool | None = None
    chat_template: bool = False

    def path_of(self, source: str) -> str | None:
        """The path that ``source`` reads: ``path`` is for text, or else for the only one of wikitext2 and c4."""
        takers = [name for name in self.datasets if name != "bundled"]
        taker = "text" if "text" in takers else takers[0] if len(takers) == 1 else None
        return self.path if source == taker else None


@dataclass
class TrackingConfig:
    """Weights & Biases: offline, online or disabled; ``group`` None is the run's name.

    ``artifacts`` may hold masks and model, which are uploaded with the run.
    """

    mode: str = "disabled"
    project: str = "statprune"
    entity: str | None = None
    group: str | None = None
    job_type: str = "prune"
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    artifacts: list[str] = field(default_factory=list)


@dataclass
class Settings:
    """Keys outside of groups."""

    name: str = "default"
    propagation: Propagation = Propagation.pruned
    device: str = "auto"
    offload: Offload = Offload.none
    activations: Place = Place.auto
    seed: int = 0
    save_model: bool = False
    verbose: bool = False
    rerun: bool = False
    cache: str | None = None


@dataclass
class RunConfig:
    """One run, checked. ``allocation``, ``method_options`` and ``compensation`` are ready to use."""

    model: ModelConfig
    calibration: CalibrationConfig
    sparsity: SparsityConfig
    pattern: Pattern
    allocation: Any
    method: str
    method_options: Any
    compensation: Compensation | None
    evaluation: EvaluationConfig
    tracking: TrackingConfig
    settings: Settings

    def resolved(self) -> dict[str, Any]:
        """The configuration as plain values, as the record keeps it."""
        options = asdict(self.method_options) if self.method_options is not None else {}
        evaluation = asdict(self.evaluation)
        if not self.evaluation.tasks:
            evaluation = {key: value for key, value in evaluation.items() if key not in OF_TASKS}
        chosen: Any = self.compensation
        compensation = {"name": "none"} if chosen is None else {"name": chosen.name, **asdict(chosen)}
        result = {
            **asdict(self.settings),
            "model": asdict(self.model),
            "calibration": asdict(self.calibration),
            "sparsity": asdict(self.sparsity),
            "method": {"name": self.method, **options},
            "compensation": compensation,
            "evaluation": evaluation,
            "tracking": asdict(self.tracking),
        }
        return json.loads(json.dumps(result, default=lambda value: value.value))

    def hash(self) -> str:
        """16 hex digits over everything that can change a number."""
        values = {key: value for key, value in self.resolved().items() if key not in NOT_IN_HASH}
        return digest(values, 16)


def parse_config(raw: dict[str, Any]) -> RunConfig:
    """Check a composed configuration.

    Args:
        raw: the resolved configuration as nested dictionaries.

    Raises:
        ConfigError: with every problem found.
    """
    problems: list[str] = []
    raw = dict(raw)
    sections = {
        name: dict(raw.pop(name, None) or {})
        for name in ("model", "calibration", "sparsity", "method", "compensation", "evaluation", "tracking")
    }
    if isinstance(sections["evaluation"].get("tasks"), str):  # evaluation.tasks=paper means [paper]
        sections["evaluation"]["tasks"] = [sections["evaluation"]["tasks"]]
    settings = _build(Settings, raw, "", problems)
    model = _build(ModelConfig, sections["model"], "model.", problems)
    calibration = _build(CalibrationConfig, sections["calibration"], "calibration.", problems)
    sparsity = _build(SparsityConfig, sections["sparsity"], "sparsity.", problems)
    evaluation = _build(EvaluationConfig, sections["evaluation"], "evaluation.", problems)
    tracking = _build(TrackingConfig, sections["tracking"], "tracking.", problems)
    method = str(sections["method"].pop("name", None))
    options = None
    if method in method_names():
        options = _build(options_class(method), sections["method"], "method.", problems)
    elif method != "dense":
        problems.append(f"method.name={method} is unknown; choose dense, {', '.join(method_names())}")
    compensation = _compensation(sections["compensation"], method, problems)
    _check_values(settings, model, calibration, evaluation, tracking, problems)
    allocation = _allocation(sparsity, problems)
    pattern = _pattern(sparsity, method, problems)
    if isinstance(pattern, NofM) and isinstance(options, SparseGPTOptions) and options.block_size % pattern.of:
        problems.append(
            f"method.block_size={options.block_size} is not divisible by M={pattern.of}; give a multiple of it"
        )
    if problems or pattern is None:
        raise ConfigError(problems)
    return RunConfig(
        model, calibration, sparsity, pattern, allocation, method, options, compensation, evaluation, tracking, settings
    )


def _check_values(
    settings: Settings,
    model: ModelConfig,
    calibration: CalibrationConfig,
    evaluation: EvaluationConfig,
    tracking: TrackingConfig,
    problems: list[str],
) -> None:
    for owner, prefix in ((calibration, "calibration"), (evaluation, "evaluation")):
        for key in ("samples", "seq_len", "batch_size", "max_windows", "num_fewshot", "limit", "task_batch_size"):
            value = getattr(owner, key, None)
            least = {"seq_len": 2, "num_fewshot": 0}.get(key, 1)
            if value is not None and value < least:
                problems.append(f"{prefix}.{key}={value} is too small; give at least {least}")
    if calibration.source not in SOURCES:
        problems.append(f"calibration.source={calibration.source} is unknown; choose one of {', '.join(SOURCES)}")
    for source in evaluation.datasets:
        if source not in SOURCES:
            problems.append(f"evaluation.datasets has {source!r}, which is unknown; choose from {', '.join(SOURCES)}")
    if len(set(evaluation.datasets)) < len(evaluation.datasets):
        problems.append("evaluation.datasets names a dataset twice; name each once")
    problems += name_problems(evaluation.tasks)
    if evaluation.name in ("zero_shot", "full") and not evaluation.tasks:
        other = "none" if evaluation.name == "zero_shot" else "perplexity"
        problems.append(f"evaluation={evaluation.name} has no evaluation.tasks; name some, or give evaluation={other}")
    if not 0 <= settings.seed < 2**63:
        problems.append(f"seed={settings.seed} is outside [0, 2**63); give another")
    if calibration.min_expert_tokens < 0:
        problems.append(f"calibration.min_expert_tokens={calibration.min_expert_tokens} is negative; give 0 or more")
    _check_expressions(model.exclude, "model.exclude", problems)
    _check_paths(model, calibration, evaluation, problems)
    if problem := offload_problem(model.path, settings.offload.value):
        problems.append(problem)
    if tracking.mode not in ("offline", "online", "disabled"):
        problems.append(f"tracking.mode={tracking.mode} is unknown; choose offline, online or disabled")
    problems += [
        f"tracking.artifacts has {name!r}, which is unknown; choose from masks and model"
        for name in tracking.artifacts
        if name not in ("masks", "model")
    ]
    if "model" in tracking.artifacts and not settings.save_model:
        problems.append("tracking.artifacts has model, which is not saved; set save_model=true")
    try:
        device = torch.device("cpu" if settings.device == "auto" else settings.device)
    except RuntimeError:
        problems.append(f"device={settings.device} is unknown; choose auto, cpu, cuda or cuda:0")
    else:
        if device.type not in ("cpu", "cuda"):
            problems.append(f"device={settings.device} is not supported; choose auto, cpu or cuda")
        elif device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            problems.append(
                f"device={settings.device} is not there; choose device=cpu or a CUDA device of this machine"
            )


def _check_paths(
    model: ModelConfig, calibration: CalibrationConfig, evaluation: EvaluationConfig, problems: list[str]
) -> None:
    checks = [model_path_problem(model.path), source_problem(calibration.source, "calibration", calibration.path)]
    checks += [source_problem(source, "evaluation", evaluation.path_of(source)) for source in evaluation.datasets]
    problems += [problem for problem in checks if problem]
    if calibration.source == "bundled" and calibration.path is not None:
        problems.append("calibration.path is given, but calibration=bundled reads no file; choose calibration=text")
    if evaluation.path is not None and not any(map(evaluation.path_of, evaluation.datasets)):
        problems.append(
            "evaluation.path is given, but serves none or several of evaluation.datasets; "
            "add text to them, or name one of wikitext2 and c4"
        )


def _compensation(given: dict[str, Any], method: str, problems: list[str]) -> Compensation | None:
    name = str(given.pop("name", None) or "none")
    names = ", ".join(COMPENSATIONS)
    if name == "none":
        if given:
            problems.append(f"compensation=none has no key {next(iter(given))}; choose one of {names}")
        return None
    if name not in COMPENSATIONS:
        problems.append(f"compensation.name={name} is unknown; choose one of none, {names}")
        return None
    if method == "dense":
        problems.append(f"compensation={name} can't follow method=dense, which prunes nothing; set compensation=none")
    compensation: Compensation = _build(COMPENSATIONS[name], given, "compensation.", problems)
    return compensation


def _allocation(sparsity: SparsityConfig, problems: list[str]) -> Any:
    """None, an Owl, or the ratios given."""
    given = sparsity.layer_ratios
    owl = {
        key: value for key in ("outlier_threshold", "max_deviation") if (value := getattr(sparsity, key)) is not None
    }
    is_owl = sparsity.allocation is AllocationName.owl
    if (is_owl or given is not None) and (sparsity.keep is not None or sparsity.of is not None):
        problems.append("sparsity.allocation=owl and sparsity.layer_ratios are for unstructured sparsity, not for N:M")
    if isinstance(given, dict):
        given = sparsity.layer_ratios = {str(expression): ratio for expression, ratio in given.items()}
    if given is not None:
        _check_ratios(given, sparsity.ratio, problems)
        if is_owl:
            problems.append(
                "sparsity.layer_ratios and sparsity.allocation=owl both decide the ratios; give one of them"
            )
        return given
    if is_owl:
        allocation = _build(Owl, owl, "sparsity.", problems)
        sparsity.outlier_threshold, sparsity.max_deviation = allocation.outlier_threshold, allocation.max_deviation
        return allocation
    problems += [f"sparsity.{key} is for sparsity.allocation=owl; leave it out or choose owl" for key in owl]
    return None


def _check_ratios(given: Any, ratio: float | None, problems: list[str]) -> None:
    if not isinstance(given, list | dict) or not given:
        problems.append("sparsity.layer_ratios is neither a list (a ratio for each block) nor {expression: ratio}")
        return
    if isinstance(given, list) and ratio is not None:
        problems.append("sparsity.ratio is given together with a list of sparsity.layer_ratios; give one or the other")
    for value in given.values() if isinstance(given, dict) else given:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            problems.append(f"sparsity.layer_ratios has {value}, which is no number in [0, 1)")
    if isinstance(given, dict):
        _check_expressions(map(str, given), "sparsity.layer_ratios", problems)


def _check_expressions(expressions: Iterable[str], key: str, problems: list[str]) -> None:
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            problems.append(f"{key} has {expression!r}, which is no regular expression: {error}")


def _pattern(sparsity: SparsityConfig, method: str, problems: list[str]) -> Pattern | None:
    keep, of = sparsity.keep, sparsity.of
    if keep is not None or of is not None:
        if keep is None or of is None:
            problems.append("N:M sparsity needs both sparsity.keep and sparsity.of; give, for example, keep=2 and of=4")
        elif not 0 < keep < of:
            problems.append(f"sparsity.keep={keep} with sparsity.of={of} is no N:M pattern; give 0 < keep < of")
        if sparsity.group is not None:
            problems.append("sparsity.group is for unstructured sparsity, not for N:M; leave it out")
        if sparsity.ratio is not None:
            problems.append("sparsity.ratio is given together with keep and of (N:M); give one or the other")
        elif keep is not None and of is not None and 0 < keep < of:
            return NofM(keep, of)
        return None
    if sparsity.group is None:
        sparsity.group = customary_group(method) if method in method_names() else Group.row
    if isinstance(sparsity.layer_ratios, list):
        return Unstructured(0.0, sparsity.group)  # every layer's ratio is in the list
    if sparsity.ratio is None:
        sparsity.ratio = 0.5
    if not 0 <= sparsity.ratio < 1:
        problems.append(f"sparsity.ratio={sparsity.ratio} is outside [0, 1); give the fraction to remove, such as 0.5")
        return None
    return Unstructured(sparsity.ratio, sparsity.group)


def _build(cls: Any, values: dict[str, Any], prefix: str, problems: list[str]) -> Any:
    """An instance of the dataclass; values of the wrong type, unknown keys and bad ranges become problems."""
    known = [item.name for item in fields(cls)]
    good: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            have = f"its keys are {', '.join(known)}" if known else "there are no keys here"
            problems.append(f"{prefix}{key} is not a key; {have}")
            continue
        if isinstance(value, float) and not math.isfinite(value):
            problems.append(f"{prefix}{key}={value} is not a finite number; give one")
            continue
        try:
            good[key] = getattr(OmegaConf.to_object(OmegaConf.merge(_typed(cls, key), {key: value})), key)
        except OmegaConfBaseException as error:
            problems.append(f"{prefix}{key}={value} has the wrong type: {str(error).splitlines()[0]}")
    try:
        return cls(**good)
    except ValueError as error:
        problems.append(str(error))
        return cls()


@functools.cache
def _typed(cls: Any, key: str) -> Any:
    """One field of the dataclass with its type, without the range checks, which would judge one key at a time."""
    item = next(item for item in fields(cls) if item.name == key)
    return OmegaConf.structured(make_dataclass(cls.__name__, [(key, item.type, item)]))

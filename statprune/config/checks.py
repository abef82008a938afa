"""Check a composed configuration without opening the model; all problems are reported together."""

import functools
import math
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, fields, make_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from statprune.config.schema import (
    AllocationName,
    CalibrationConfig,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    Settings,
    SparsityConfig,
    TrackingConfig,
)
from statprune.core.compensation import Compensation, Energy
from statprune.core.methods import customary_group, method_names, options_class
from statprune.core.moments import Moments
from statprune.core.patterns import Group, NofM, Pattern, Unstructured
from statprune.core.sparsegpt import SparseGPTOptions
from statprune.data.sources import SOURCES, source_problem
from statprune.errors import ConfigError
from statprune.evaluate.tasks import name_problems
from statprune.model.location import model_path_problem, offload_problem
from statprune.pruning.allocation import Allocation, BlockRatios, NamedRatios, Owl

T = TypeVar("T")
COMPENSATIONS: dict[str, type[Energy | Moments]] = {cls.name: cls for cls in (Energy, Moments)}
SECTIONS = ("model", "calibration", "sparsity", "method", "compensation", "evaluation", "tracking")


def parse_config(raw: dict[str, Any]) -> RunConfig:
    """Check a composed configuration.

    Args:
        raw: the resolved configuration as nested dictionaries.

    Raises:
        ConfigError: with every problem found.
    """
    return _Parser(dict(raw)).config()


@dataclass
class _Parser:
    """Turns nested dictionaries into a checked configuration, and collects what is wrong with them."""

    raw: dict[str, Any]
    problems: list[str] = field(default_factory=list)

    def config(self) -> RunConfig:
        """The configuration, or a ConfigError with every problem."""
        sections = {name: dict(self.raw.pop(name, None) or {}) for name in SECTIONS}
        if isinstance(sections["evaluation"].get("tasks"), str):  # evaluation.tasks=paper means [paper]
            sections["evaluation"]["tasks"] = [sections["evaluation"]["tasks"]]
        settings = self._build(Settings, self.raw, "")
        model = self._build(ModelConfig, sections["model"], "model.")
        calibration = self._build(CalibrationConfig, sections["calibration"], "calibration.")
        sparsity = self._build(SparsityConfig, sections["sparsity"], "sparsity.")
        evaluation = self._build(EvaluationConfig, sections["evaluation"], "evaluation.")
        tracking = self._build(TrackingConfig, sections["tracking"], "tracking.")
        method = str(sections["method"].pop("name", None))
        options = self._method_options(method, sections["method"])
        compensation = self._compensation(sections["compensation"], method)
        self._check_numbers(calibration, evaluation)
        self._check_datasets(calibration, evaluation)
        self._check_tasks(evaluation)
        self._check_settings(settings, model, calibration)
        self._check_paths(model, calibration, evaluation)
        self._check_tracking(settings, model, tracking)
        self._check_device(settings.device)
        allocation = self._allocation(sparsity)
        pattern = self._pattern(sparsity, method)
        if isinstance(pattern, NofM) and isinstance(options, SparseGPTOptions) and options.block_size % pattern.of:
            self.problems.append(
                f"method.block_size={options.block_size} is not divisible by M={pattern.of}; give a multiple of it"
            )
        if self.problems or pattern is None:
            raise ConfigError(self.problems)
        return RunConfig(
            model=model,
            calibration=calibration,
            sparsity=sparsity,
            pattern=pattern,
            allocation=allocation,
            method=method,
            method_options=options,
            compensation=compensation,
            evaluation=evaluation,
            tracking=tracking,
            settings=settings,
        )

    def _build(self, cls: type[T], values: dict[str, object], prefix: str) -> T:
        """An instance of the dataclass; values of the wrong type, unknown keys and bad ranges become problems."""
        names = [item.name for item in fields(cls)]  # type: ignore[arg-type]  # a dataclass
        good: dict[str, object] = {}
        for key, value in values.items():
            if key not in names:
                have = f"its keys are {', '.join(names)}" if names else "there are no keys here"
                self.problems.append(f"{prefix}{key} is not a key; {have}")
                continue
            if isinstance(value, float) and not math.isfinite(value):
                self.problems.append(f"{prefix}{key}={value} is not a finite number; give one")
                continue
            try:
                good[key] = _converted(cls, key, value)
            except OmegaConfBaseException as error:
                reason = str(error).splitlines()[0]
                self.problems.append(f"{prefix}{key}={value} has the wrong type: {reason}")
        try:
            return cls(**good)
        except ValueError as error:
            self.problems.append(str(error))
            return cls()

    def _method_options(self, method: str, values: dict[str, object]) -> object:
        if method in method_names():
            return self._build(options_class(method), values, "method.")
        if method != "dense":
            self.problems.append(f"method.name={method} is unknown; choose dense, {', '.join(method_names())}")
        return None

    def _compensation(self, values: dict[str, object], method: str) -> Compensation | None:
        name = str(values.pop("name", None) or "none")
        names = ", ".join(COMPENSATIONS)
        if name == "none":
            if values:
                self.problems.append(f"compensation=none has no key {next(iter(values))}; choose one of {names}")
            return None
        if name not in COMPENSATIONS:
            self.problems.append(f"compensation.name={name} is unknown; choose one of none, {names}")
            return None
        if method == "dense":
            self.problems.append(
                f"compensation={name} can't follow method=dense, which prunes nothing; set compensation=none"
            )
        compensation: Compensation = self._build(COMPENSATIONS[name], values, "compensation.")
        return compensation

    def _check_numbers(self, calibration: CalibrationConfig, evaluation: EvaluationConfig) -> None:
        for owner, prefix in ((calibration, "calibration"), (evaluation, "evaluation")):
            for key in ("samples", "seq_len", "batch_size", "max_windows", "num_fewshot", "limit", "task_batch_size"):
                value = getattr(owner, key, None)
                least = {"seq_len": 2, "num_fewshot": 0}.get(key, 1)
                if value is not None and value < least:
                    self.problems.append(f"{prefix}.{key}={value} is too small; give at least {least}")

    def _check_datasets(self, calibration: CalibrationConfig, evaluation: EvaluationConfig) -> None:
        names = ", ".join(SOURCES)
        if calibration.source not in SOURCES:
            self.problems.append(f"calibration.source={calibration.source} is unknown; choose one of {names}")
        for source in evaluation.datasets:
            if source not in SOURCES:
                self.problems.append(f"evaluation.datasets has {source!r}, which is unknown; choose from {names}")
        if len(set(evaluation.datasets)) < len(evaluation.datasets):
            self.problems.append("evaluation.datasets names a dataset twice; name each once")

    def _check_tasks(self, evaluation: EvaluationConfig) -> None:
        self.problems += name_problems(evaluation.tasks)
        if evaluation.name in ("zero_shot", "full") and not evaluation.tasks:
            other = "none" if evaluation.name == "zero_shot" else "perplexity"
            self.problems.append(
                f"evaluation={evaluation.name} has no evaluation.tasks; name some, or give evaluation={other}"
            )

    def _check_settings(self, settings: Settings, model: ModelConfig, calibration: CalibrationConfig) -> None:
        if not 0 <= settings.seed < 2**63:
            self.problems.append(f"seed={settings.seed} is outside [0, 2**63); give another")
        if calibration.min_expert_tokens < 0:
            self.problems.append(
                f"calibration.min_expert_tokens={calibration.min_expert_tokens} is negative; give 0 or more"
            )
        self._check_expressions(model.exclude, "model.exclude")

    def _check_paths(self, model: ModelConfig, calibration: CalibrationConfig, evaluation: EvaluationConfig) -> None:
        checks = [model_path_problem(model.path), source_problem(calibration.source, "calibration", calibration.path)]
        checks += [source_problem(source, "evaluation", evaluation.path_of(source)) for source in evaluation.datasets]
        self.problems += [problem for problem in checks if problem]
        if calibration.source == "bundled" and calibration.path is not None:
            self.problems.append(
                "calibration.path is given, but calibration=bundled reads no file; choose calibration=text"
            )
        if evaluation.path is not None and not any(map(evaluation.path_of, evaluation.datasets)):
            self.problems.append(
                "evaluation.path is given, but serves none or several of evaluation.datasets; "
                "add text to them, or name one of wikitext2 and c4"
            )

    def _check_tracking(self, settings: Settings, model: ModelConfig, tracking: TrackingConfig) -> None:
        if problem := offload_problem(model.path, settings.offload.value):
            self.problems.append(problem)
        if tracking.mode not in ("offline", "online", "disabled"):
            self.problems.append(f"tracking.mode={tracking.mode} is unknown; choose offline, online or disabled")
        self.problems += [
            f"tracking.artifacts has {name!r}, which is unknown; choose from masks and model"
            for name in tracking.artifacts
            if name not in ("masks", "model")
        ]
        if "model" in tracking.artifacts and not settings.save_model:
            self.problems.append("tracking.artifacts has model, which is not saved; set save_model=true")

    def _check_device(self, name: str) -> None:
        try:
            device = torch.device("cpu" if name == "auto" else name)
        except RuntimeError:
            self.problems.append(f"device={name} is unknown; choose auto, cpu, cuda or cuda:0")
            return
        if device.type not in ("cpu", "cuda"):
            self.problems.append(f"device={name} is not supported; choose auto, cpu or cuda")
        elif device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            self.problems.append(f"device={name} is not there; choose device=cpu or a CUDA device of this machine")

    def _allocation(self, sparsity: SparsityConfig) -> Allocation | None:
        """None, OWL, or explicit ratios."""
        ratios = sparsity.layer_ratios
        owl_options = {
            key: value
            for key in ("outlier_threshold", "max_deviation")
            if (value := getattr(sparsity, key)) is not None
        }
        is_owl = sparsity.allocation is AllocationName.owl
        if (is_owl or ratios is not None) and (sparsity.keep is not None or sparsity.of is not None):
            self.problems.append(
                "sparsity.allocation=owl and sparsity.layer_ratios are for unstructured sparsity, not for N:M"
            )
        if ratios is not None:
            if is_owl:
                self.problems.append(
                    "sparsity.layer_ratios and sparsity.allocation=owl both decide the ratios; give one of them"
                )
            return self._explicit_ratios(sparsity)
        if is_owl:
            owl = self._build(Owl, owl_options, "sparsity.")
            sparsity.outlier_threshold, sparsity.max_deviation = owl.outlier_threshold, owl.max_deviation
            return owl
        self.problems += [
            f"sparsity.{key} is for sparsity.allocation=owl; leave it out or choose owl" for key in owl_options
        ]
        return None

    def _explicit_ratios(self, sparsity: SparsityConfig) -> Allocation | None:
        ratios = sparsity.layer_ratios
        if isinstance(ratios, dict):
            ratios = sparsity.layer_ratios = {str(expression): ratio for expression, ratio in ratios.items()}
        if not isinstance(ratios, list | dict) or not ratios:
            self.problems.append(
                "sparsity.layer_ratios is neither a list (a ratio for each block) nor {expression: ratio}"
            )
            return None
        if isinstance(ratios, list) and sparsity.ratio is not None:
            self.problems.append(
                "sparsity.ratio is given together with a list of sparsity.layer_ratios; give one or the other"
            )
        for value in ratios.values() if isinstance(ratios, dict) else ratios:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                self.problems.append(f"sparsity.layer_ratios has {value}, which is no number in [0, 1)")
        if isinstance(ratios, dict):
            self._check_expressions(ratios, "sparsity.layer_ratios")
            return NamedRatios(tuple(ratios.items()))
        return BlockRatios(tuple(ratios))

    def _pattern(self, sparsity: SparsityConfig, method: str) -> Pattern | None:
        if sparsity.keep is not None or sparsity.of is not None:
            return self._nofm(sparsity)
        if sparsity.group is None:
            sparsity.group = customary_group(method) if method in method_names() else Group.row
        if isinstance(sparsity.layer_ratios, list):
            return Unstructured(0.0, sparsity.group)  # every matrix's ratio is in the list
        if sparsity.ratio is None:
            sparsity.ratio = 0.5
        if not 0 <= sparsity.ratio < 1:
            self.problems.append(
                f"sparsity.ratio={sparsity.ratio} is outside [0, 1); give the fraction to remove, such as 0.5"
            )
            return None
        return Unstructured(sparsity.ratio, sparsity.group)

    def _nofm(self, sparsity: SparsityConfig) -> Pattern | None:
        keep, of = sparsity.keep, sparsity.of
        if keep is None or of is None:
            self.problems.append(
                "N:M sparsity needs both sparsity.keep and sparsity.of; give, for example, keep=2 and of=4"
            )
        elif not 0 < keep < of:
            self.problems.append(f"sparsity.keep={keep} with sparsity.of={of} is no N:M pattern; give 0 < keep < of")
        if sparsity.group is not None:
            self.problems.append("sparsity.group is for unstructured sparsity, not for N:M; leave it out")
        if sparsity.ratio is not None:
            self.problems.append("sparsity.ratio is given together with keep and of (N:M); give one or the other")
        elif keep is not None and of is not None and 0 < keep < of:
            return NofM(keep, of)
        return None

    def _check_expressions(self, expressions: Iterable[str], key: str) -> None:
        for expression in expressions:
            try:
                re.compile(expression)
            except re.error as error:
                self.problems.append(f"{key} has {expression!r}, which is no regular expression: {error}")


def _converted(cls: type, key: str, value: object) -> object:
    """The value in the type of a dataclass's field.

    Raises:
        OmegaConfBaseException: it does not fit.
    """
    if type(value) in _plain_types(cls, key):
        return value
    return _convert_hashable(cls, key, value) if isinstance(value, Hashable) else _convert(cls, key, value)


@functools.cache
def _plain_types(cls: Hashable, key: str) -> frozenset[type]:
    """Types whose values a field takes as they are; texts are not among them, which OmegaConf may interpolate."""
    annotation = get_type_hints(cls)[key]
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return frozenset({bool, int, float, NoneType}.intersection(choices))


@functools.lru_cache(maxsize=4096, typed=True)
def _convert_hashable(cls: Hashable, key: str, value: Hashable) -> object:
    """As ``_convert``, remembered: the cells of a table have most of their values in common."""
    return _convert(cls, key, value)


def _convert(cls: Hashable, key: str, value: object) -> object:
    return getattr(OmegaConf.to_object(OmegaConf.merge(_typed(cls, key), {key: value})), key)


@functools.cache
def _typed(cls: Hashable, key: str) -> DictConfig:
    """One field of a dataclass with its type, without the range checks, which would judge one key at a time."""
    assert isinstance(cls, type)
    item = next(item for item in fields(cls) if item.name == key)
    structured: DictConfig = OmegaConf.structured(make_dataclass(cls.__name__, [(key, item.type, item)]))
    return structured

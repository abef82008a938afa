"""Check a composed configuration without opening the model; all problems are reported together."""

from dataclasses import dataclass, field
from typing import TypeVar

from statprune.config.choices import LIST_KEYS, NONE, Chosen
from statprune.config.hub_target import hub_problems
from statprune.config.quantizing import quantize_problems
from statprune.config.run_folder import name_problem, path_problem
from statprune.config.schema import RunConfig
from statprune.config.sections import (
    CalibrationConfig,
    EvaluationConfig,
    ModelConfig,
    QuantizeConfig,
    Settings,
    TrackingConfig,
)
from statprune.config.sparsity import expression_problems, parse_sparsity
from statprune.config.unused import unused_problems
from statprune.core.compensation import COMPENSATIONS
from statprune.core.methods import (
    DENSE,
    Method,
    make_method,
    method_names,
    method_origin,
    options_class,
    unknown_method,
)
from statprune.core.refinement import REFINEMENTS, Refinement
from statprune.core.statistics import StatisticsKind
from statprune.data.sources import CALIBRATION, EVALUATION, SOURCES, field_owner, source_problem
from statprune.errors import ConfigError
from statprune.evaluation.task_sets import metric_problem
from statprune.evaluation.tasks import is_path, name_problems
from statprune.model.location import model_path_problem, offload_problem
from statprune.pruning.spec import gram_precision_problem
from statprune.system.devices import ABSENT, UNKNOWN, UNSUPPORTED, device_complaint
from statprune.system.options import PlainValues, build
from statprune.system.registry import Registry

T = TypeVar("T")
SECTIONS = (
    "model",
    "calibration",
    "sparsity",
    "method",
    "refinement",
    "compensation",
    "evaluation",
    "quantize",
    "tracking",
)
EVALUATIONS = ("perplexity", "zero_shot", "full", "none")
INSTEAD = {  # of a device that can't be
    UNKNOWN: "auto, cpu, cuda or cuda:0",
    UNSUPPORTED: "auto, cpu or cuda",
    ABSENT: "device=cpu or a CUDA device of this machine",
}
EXPERIMENT = "experiment"  # a group without a section: its files set keys of others
ORIGINS = "origins"  # of plugins: in records, and not to be given


def parse_config(raw: PlainValues) -> RunConfig:
    """Check a composed configuration.

    Args:
        raw: the resolved configuration as nested dictionaries.

    Raises:
        ConfigError: with every problem found.
    """
    return _Parser({key: value for key, value in raw.items() if key != ORIGINS}).config()


@dataclass
class _Parser:
    """Turns nested dictionaries into a checked configuration, and collects what is wrong with them."""

    raw: PlainValues
    problems: list[str] = field(default_factory=list)

    def config(self) -> RunConfig:
        """The configuration, or a ConfigError with every problem."""
        sections = {name: self._section(name) for name in SECTIONS}
        for key in LIST_KEYS:
            section, _, name = key.rpartition(".")
            values = sections[section] if section else self.raw
            if isinstance(values.get(name), str):
                values[name] = [values[name]]
        if self.raw.pop(EXPERIMENT, None) is not None:
            self.problems.append(
                f"{EXPERIMENT} has keys of its own, which set nothing; the first line of an experiment's file "
                "has to be # @package _global_"
            )
        settings = self._build(Settings, self.raw, "")
        model = self._build(ModelConfig, sections["model"], "model.")
        calibration = self._build(CalibrationConfig, sections["calibration"], "calibration.")
        evaluation = self._build(EvaluationConfig, sections["evaluation"], "evaluation.")
        quantize = self._build(QuantizeConfig, sections["quantize"], "quantize.")
        tracking = self._build(TrackingConfig, sections["tracking"], "tracking.")
        method = self._method(sections["method"])
        is_dense = sections["method"].get("name") == DENSE
        refinement = self._stage("refinement", REFINEMENTS, sections["refinement"], is_dense)
        compensation = self._stage("compensation", COMPENSATIONS, sections["compensation"], is_dense)
        self._check_numbers(calibration, evaluation)
        self._check_datasets(calibration, evaluation)
        self._check_tasks(evaluation)
        self._check_settings(settings, model, calibration)
        self._check_paths(model, calibration, evaluation)
        self._check_tracking(settings, model, tracking)
        self.problems += hub_problems(settings)
        self._check_device(settings.device)
        self.problems += unused_problems(model, evaluation, sections["method"])
        self.problems += quantize_problems(quantize, settings, evaluation)
        sparsity, problems = parse_sparsity(sections["sparsity"], method)
        self.problems += problems
        if method is not None and sparsity.pattern is not None:
            stages: list[Method | Refinement] = [method.value, *([refinement.value] if refinement is not None else [])]
            found = [stage.problem(sparsity.pattern.value) for stage in stages]
            self.problems += [problem for problem in found if problem]
        kinds = [stage.value.needs for stage in (method, refinement, compensation) if stage is not None]
        if problem := gram_precision_problem(settings.gram_precision, max(kinds, default=StatisticsKind.NONE)):
            self.problems.append(problem)
        if self.problems or sparsity.pattern is None:
            raise ConfigError(self.problems)
        return RunConfig(
            model=model,
            calibration=calibration,
            sparsity=sparsity.asked,
            pattern=sparsity.pattern,
            allocation=sparsity.allocation,
            method=method,
            refinement=refinement,
            compensation=compensation,
            evaluation=evaluation,
            quantize=quantize,
            tracking=tracking,
            settings=settings,
        )

    def _section(self, name: str) -> dict[str, object]:
        values = self.raw.pop(name, None)
        if values is not None and not isinstance(values, dict):
            raise ConfigError([f"{name} is {values!r} and holds no keys; write its keys below it, one a line"])
        return dict(values or {})

    def _build(self, cls: type[T], values: dict[str, object], prefix: str) -> T:
        """An instance of one of our dataclasses, which have defaults; what is wrong becomes problems."""
        result = build(cls, values, prefix)
        self.problems += result.problems
        return cls() if result.value is None else result.value

    def _method(self, values: PlainValues) -> Chosen[Method] | None:
        name = str(values.get("name"))
        if name == DENSE:
            return None
        if name not in method_names():
            self.problems.append(unknown_method(name))
            return None
        options: object = self._build(options_class(name), _without_name(values), "method.")
        return Chosen(name, make_method(name, options), options, method_origin(name))

    def _stage(self, group: str, registry: Registry[type[T]], values: PlainValues, is_dense: bool) -> Chosen[T] | None:
        """A stage after the method that can be left out."""
        name, options = str(values.get("name") or NONE), _without_name(values)
        if name == NONE:
            if options:
                names = ", ".join(registry.names()) or "those that plugins bring"
                self.problems.append(f"{group}=none has no key {next(iter(options))}; choose one of {names}")
            return None
        if name not in registry:
            self.problems.append(registry.unknown(name, (NONE,)))
            return None
        if is_dense:
            self.problems.append(f"{group}={name} can't follow method=dense, which prunes nothing; set {group}=none")
        value = self._build(registry.get(name), options, f"{group}.")
        return Chosen(name, value, value, registry.origin(name))

    def _check_numbers(self, calibration: CalibrationConfig, evaluation: EvaluationConfig) -> None:
        for owner, prefix in ((calibration, "calibration"), (evaluation, "evaluation")):
            for key in ("samples", "seq_len", "batch_size", "max_windows", "num_fewshot", "limit", "task_batch_size"):
                value = getattr(owner, key, None)
                least = {"seq_len": 2, "num_fewshot": 0}.get(key, 1)
                if value is not None and value < least:
                    self.problems.append(f"{prefix}.{key}={value} is too small; give at least {least}")

    def _check_datasets(self, calibration: CalibrationConfig, evaluation: EvaluationConfig) -> None:
        if calibration.source not in SOURCES:
            self.problems.append(f"calibration.source: {SOURCES.unknown(calibration.source)}")
        for source in evaluation.datasets:
            if source not in SOURCES:
                self.problems.append(f"evaluation.datasets: {SOURCES.unknown(source)}")
        if len(set(evaluation.datasets)) < len(evaluation.datasets):
            self.problems.append("evaluation.datasets names a dataset twice; name each once")

    def _check_tasks(self, evaluation: EvaluationConfig) -> None:
        unseen = [problem for task in evaluation.tasks if (problem := path_problem("evaluation.tasks", task))]
        self.problems += unseen or name_problems(evaluation.tasks)
        if problem := metric_problem(evaluation.tasks, evaluation.metric, EvaluationConfig.metric):
            self.problems.append(problem)
        if evaluation.trust_task_code and not any(is_path(name) for name in evaluation.tasks):
            self.problems.append(
                "evaluation.trust_task_code=true has no effect without a task YAML of your own in evaluation.tasks; "
                "leave it out"
            )
        if evaluation.name not in EVALUATIONS:
            self.problems.append(f"evaluation.name={evaluation.name} is unknown; choose {' or '.join(EVALUATIONS)}")
        if evaluation.name in ("zero_shot", "full") and not evaluation.tasks:
            other = "none" if evaluation.name == "zero_shot" else "perplexity"
            self.problems.append(
                f"evaluation={evaluation.name} has no evaluation.tasks; name some, or give evaluation={other}"
            )

    def _check_settings(self, settings: Settings, model: ModelConfig, calibration: CalibrationConfig) -> None:
        if problem := name_problem(settings.name):
            self.problems.append(problem)
        if settings.cache is not None and not settings.cache.strip():
            self.problems.append("cache is empty; name a folder, or give cache=null for none")
        elif settings.cache is not None and (problem := path_problem("cache", settings.cache)):
            self.problems.append(problem)
        if not 0 <= settings.seed < 2**63:
            self.problems.append(f"seed={settings.seed} is outside [0, 2**63); give another")
        if calibration.min_expert_tokens < 0:
            self.problems.append(
                f"calibration.min_expert_tokens={calibration.min_expert_tokens} is negative; give 0 or more"
            )
        self.problems += expression_problems(model.exclude, "model.exclude")

    def _check_paths(self, model: ModelConfig, calibration: CalibrationConfig, evaluation: EvaluationConfig) -> None:
        paths = {"model.path": model.path, "calibration.path": calibration.path, "evaluation.path": evaluation.path}
        if problems := [problem for key, path in paths.items() if path and (problem := path_problem(key, path))]:
            self.problems += problems
            return
        checks = [model_path_problem(model.path)]
        if calibration.source in SOURCES:
            checks.append(source_problem(CALIBRATION, calibration.source, calibration.path, calibration.field))
        if all(source in SOURCES for source in evaluation.datasets):
            owners = {source: evaluation.path_of(source) for source in evaluation.datasets}
            checks += [
                source_problem(EVALUATION, source, path, evaluation.field_of(source)) for source, path in owners.items()
            ]
            if evaluation.field is not None and field_owner(evaluation.datasets) is None:
                checks.append(
                    "evaluation.field is given, but no dataset of evaluation.datasets reads a column; add text"
                )
            if evaluation.path is not None and not any(owners.values()):
                checks.append(
                    "evaluation.path is given, but serves none or several of evaluation.datasets; "
                    "add text to them, or name one of wikitext2, c4 and ptb"
                )
        self.problems += [problem for problem in checks if problem]

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
        if "model" in tracking.artifacts and not settings.saves_model:
            self.problems.append("tracking.artifacts has model, which is not saved; set save_model=true or compressed")

    def _check_device(self, name: str) -> None:
        if (complaint := device_complaint(name)) is not None:
            self.problems.append(f"device={name} {complaint}; choose {INSTEAD[complaint]}")


def _without_name(values: PlainValues) -> PlainValues:
    return {key: value for key, value in values.items() if key != "name"}

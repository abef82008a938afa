"""One run, checked, and the hash of everything in it that can change a number."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from statprune.config.choices import NONE, Chosen
from statprune.config.sections import (
    CalibrationConfig,
    EvaluationConfig,
    ModelConfig,
    QuantizeConfig,
    Settings,
    SparsityConfig,
    TrackingConfig,
)
from statprune.config.unused import TASK_KEYS
from statprune.core.compensation import Compensation
from statprune.core.gram import GramPrecision
from statprune.core.methods import DENSE, Method
from statprune.core.patterns import Pattern
from statprune.core.refinement import Refinement
from statprune.data.sources import SOURCES
from statprune.data.token_windows import Bos
from statprune.pruning.allocation import Allocation
from statprune.pruning.spec import PruneSpec
from statprune.system.options import PlainValues
from statprune.system.registry import Origin

# keys that change no number
NOT_IN_HASH = (
    *("name", "tracking", "verbose", "save_model", "offload", "activations", "checkpoint", "rerun", "cache", "plugins"),
    *("verify_inputs", "push_to_hub", "push_private"),
    *("evaluation.fidelity",),  # a run without fidelity has the same other numbers, and is finished
)
# keys that are absent at their defaults, as in older records
LATER_KEYS = ("field", "trust_task_code", "bos", "exclude", "gram_precision")


@dataclass
class RunConfig:
    """One run, checked.

    Attributes:
        model: which model.
        calibration: which windows it is calibrated on.
        sparsity: as it was asked for.
        pattern: what is kept; its name is that of a plugin's, or of ours.
        allocation: how the pattern's ratio is spread; None: every matrix has it.
        method: None: nothing is pruned.
        refinement: None: none.
        compensation: None: none.
        evaluation: what is measured.
        quantize: of which quantised models, too.
        tracking: Weights & Biases.
        settings: keys outside of groups.
    """

    model: ModelConfig
    calibration: CalibrationConfig
    sparsity: SparsityConfig
    pattern: Chosen[Pattern]
    allocation: Chosen[Allocation] | Allocation | None
    method: Chosen[Method] | None
    refinement: Chosen[Refinement] | None
    compensation: Chosen[Compensation] | None
    evaluation: EvaluationConfig
    quantize: QuantizeConfig
    tracking: TrackingConfig
    settings: Settings

    @property
    def is_dense(self) -> bool:
        """Whether the run only measures the model."""
        return self.method is None

    @property
    def measures_fidelity(self) -> bool:
        """Whether predictions of a pruned or quantised model are compared with the dense model's."""
        has_another = not self.is_dense or self.quantize.scheme is not None
        return self.evaluation.fidelity and bool(self.evaluation.datasets) and has_another

    @property
    def method_name(self) -> str:
        """The method's name; dense where nothing is pruned."""
        return DENSE if self.method is None else self.method.name

    @property
    def spread(self) -> Allocation | None:
        """The allocation itself."""
        return self.allocation.value if isinstance(self.allocation, Chosen) else self.allocation

    @property
    def spec(self) -> PruneSpec:
        """What ``prune`` is asked to do.

        Raises:
            ValueError: the run is dense.
        """
        if self.method is None:
            raise ValueError("a dense run prunes nothing")
        return PruneSpec(
            method=self.method.value,
            pattern=self.pattern.value,
            refinement=self.refinement.value if self.refinement is not None else None,
            compensation=self.compensation.value if self.compensation is not None else None,
            allocation=self.spread,
            propagation=self.settings.propagation,
            min_expert_tokens=self.calibration.min_expert_tokens,
            seed=self.settings.seed,
            gram_precision=self.settings.gram_precision,
        )

    @property
    def origins(self) -> dict[str, Origin]:
        """Where choices come from that plugins brought, by the group or key that chose them."""
        chosen = {
            "method": self.method,
            "sparsity": self.pattern,
            "allocation": self.allocation,
            "refinement": self.refinement,
            "compensation": self.compensation,
        }
        origins = {key: own.origin for key, own in chosen.items() if isinstance(own, Chosen)}
        if not self.is_dense:
            origins["calibration"] = SOURCES.origin(self.calibration.source)
        origins |= {f"evaluation {name}": SOURCES.origin(name) for name in self.evaluation.datasets}
        return {key: origin for key, origin in origins.items() if not origin.is_own}

    def resolved(self) -> PlainValues:
        """The configuration as plain values, as the record holds it."""
        evaluation = asdict(self.evaluation)
        if not self.evaluation.tasks:
            evaluation = {key: value for key, value in evaluation.items() if key not in (*TASK_KEYS, "trust_task_code")}
        values = {
            **_without_defaults(asdict(self.settings)),
            "model": asdict(self.model),
            "calibration": _without_defaults(asdict(self.calibration)),
            "sparsity": self.sparsity.resolved(),
            "method": _resolved(self.method, DENSE),
            "compensation": _resolved(self.compensation, NONE),
            "evaluation": _without_defaults(evaluation),
            "tracking": asdict(self.tracking),
        }
        if self.refinement is not None:
            values["refinement"] = _without_defaults(_resolved(self.refinement, NONE))
        if self.quantize.scheme is not None:
            values["quantize"] = asdict(self.quantize)
        if origins := self.origins:
            values["origins"] = {key: asdict(origin) for key, origin in origins.items()}
        result: PlainValues = json.loads(json.dumps(values, default=lambda value: value.value))
        return result

    def hash(self) -> str:
        """16 hex digits over everything that can change a number."""
        values = {key: value for key, value in self.resolved().items() if key not in NOT_IN_HASH}
        values["evaluation"] = {
            key: value for key, value in values["evaluation"].items() if f"evaluation.{key}" not in NOT_IN_HASH
        }
        return digest(values, 16)


def _without_defaults(values: PlainValues) -> PlainValues:
    return {
        key: value
        for key, value in values.items()
        if key not in LATER_KEYS or value not in (None, False, Bos.auto, GramPrecision.float32, [], ())
    }


def _resolved(chosen: Chosen[Any] | None, absent: str) -> PlainValues:
    return {"name": absent} if chosen is None else {"name": chosen.name, **chosen.plain_options}


def digest(value: object, digits: int) -> str:
    """Hexadecimal digits of a hash of nested plain values; anything else is hashed as ``str`` writes it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:digits]

"""The record of a run, ``result.json``: what it holds, and how records of older versions are read."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from statprune.data.windows import TextOrigin
from statprune.errors import StatpruneError
from statprune.evaluation.accuracy import ZeroShotResult
from statprune.model.coverage import Coverage
from statprune.model.saved import SavedModel
from statprune.runs.environment import Environment

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class PerplexityResult:
    """Perplexity on one dataset, and what it was measured on.

    Attributes:
        dense: of the dense model: exp of the mean window loss; None where it is not finite.
        pruned: of the pruned model.
        seq_len: tokens of a window.
        windows: how many there are.
        tokens: predicted tokens of all windows.
        source: of the text.
        sha256: of the text.
        begins_with_bos: whether the tokenizer puts its BOS token first.
        text_tokens: tokens of the whole text.
    """

    dense: float | None
    pruned: float | None
    seq_len: int
    windows: int
    tokens: int
    source: str
    sha256: str
    begins_with_bos: bool
    text_tokens: int | None = None


@dataclass(frozen=True)
class SparsityResult:
    """Sparsity as it was wanted and as it was counted.

    Attributes:
        target: over the pruned matrices; None where nothing was pruned by an allocation.
        achieved: exact zeros among all matrix weights of all blocks, counted on the stored weights.
        blocks: by block, over its pruned matrices; None where it has none.
    """

    target: float | None
    achieved: float
    blocks: list[float | None]


@dataclass(frozen=True)
class CorrectionResult:
    """What a compensation that judges itself did; means are over the matrices that it judged.

    Attributes:
        corrected: matrices that it changed.
        unchanged: matrices that it left as they were.
        output_error_before: mean relative output error on held-out rows.
        output_error_after: the same after the correction.
        mean_shift_before: mean shift of the outputs' means.
        mean_shift_after: the same after the correction.
    """

    corrected: int
    unchanged: int
    output_error_before: float | None
    output_error_after: float | None
    mean_shift_before: float | None
    mean_shift_after: float | None


@dataclass(frozen=True)
class MemoryResult:
    """Bytes at the peak of the largest process, measured and predicted.

    Attributes:
        peak_host_bytes: of the host, after the plan was made.
        predicted_host_bytes: the prediction for it.
        load_peak_host_bytes: of the host while the model was loaded.
        peak_device_bytes: of the GPU; 0 without one.
        predicted_device_bytes: the prediction for it.
        activations: where the windows' hidden states waited.
    """

    peak_host_bytes: int
    predicted_host_bytes: int
    load_peak_host_bytes: int
    peak_device_bytes: int
    predicted_device_bytes: int
    activations: str


@dataclass(frozen=True)
class Pending:
    """What a run still lacks.

    Attributes:
        evaluation: zero_shot.
        model: folder of the pruned model within the run's; None where it could not be saved.
    """

    evaluation: str
    model: str | None


@dataclass(frozen=True)
class RunRecord:
    """What one run was, measured and took.

    Attributes:
        config: the resolved configuration.
        config_hash: over everything in it that can change a number.
        date: when the record was made (UTC, ISO 8601).
        environment: versions, commit and machine.
        perplexity: by dataset.
        zero_shot: None where no task was run.
        sparsity: wanted and counted.
        coverage: how many matrix weights were pruned, and which were not.
        correction: None where no compensation judged itself.
        calibration: where the calibration windows come from; None where nothing was pruned.
        seconds: by phase.
        reused: what the run did not have to do, in words.
        memory: measured and predicted peaks.
        pending: what the run still lacks; None where it is finished.
        saved: the model that was saved and compared with the memory; None where none was, or an older version did it.
        paths: absolute paths of the local files and folders by the configuration's keys, and the run's own `folder`;
            empty in records of versions that did not keep them.
        schema_version: of the file.
    """

    config: dict[str, Any]
    config_hash: str
    date: str | None
    environment: Environment
    perplexity: dict[str, PerplexityResult]
    sparsity: SparsityResult
    coverage: Coverage
    seconds: dict[str, float]
    memory: MemoryResult
    zero_shot: ZeroShotResult | None = None
    correction: CorrectionResult | None = None
    calibration: TextOrigin | None = None
    reused: list[str] = field(default_factory=list)
    pending: Pending | None = None
    saved: SavedModel | None = None
    paths: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def is_finished(self) -> bool:
        """Whether nothing is pending."""
        return self.pending is None

    @property
    def is_pruned(self) -> bool:
        """Whether the run pruned the model, and did not only measure it."""
        return self.calibration is not None

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the file holds them, the schema's version first."""
        return {"schema_version": self.schema_version, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunRecord":
        """Read plain values of this or an older version of the schema.

        Raises:
            StatpruneError: they are no record, in one sentence that names what is wrong.
        """
        try:
            record: RunRecord = _adapter().validate_python(migrated(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the record"
            raise StatpruneError(f"{where}: {first['msg']}") from error
        return record


def migrated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of any version of the schema as those of today's.

    Raises:
        StatpruneError: they have no version, or one that this statprune does not know.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("schema_version"), int):
        raise StatpruneError("it has no schema_version")
    result = dict(values)
    while (version := result["schema_version"]) != SCHEMA_VERSION:
        if version not in MIGRATIONS:
            raise StatpruneError(
                f"its schema is {version}, and this statprune reads {min(MIGRATIONS)} to {SCHEMA_VERSION}"
            )
        result = MIGRATIONS[version](result)
    return result


def _from_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """Schema 1 had the measurements below ``metrics``, and other words for what is not pruned and not corrected."""
    result = {key: value for key, value in values.items() if key != "metrics"}
    try:
        result |= {"perplexity": values["metrics"]["perplexity"], "zero_shot": values["metrics"].get("zero_shot")}
        kinds = {
            name: {"skipped": kind["left"], **{key: value for key, value in kind.items() if key != "left"}}
            for name, kind in values["coverage"]["kinds"].items()
        }
        result["coverage"] = values["coverage"] | {"kinds": kinds}
        if correction := values.get("correction"):
            unchanged = {"unchanged": correction["left"]}
            result["correction"] = unchanged | {key: value for key, value in correction.items() if key != "left"}
    except (KeyError, TypeError, AttributeError) as error:
        raise StatpruneError(f"{error} is missing or damaged") from error
    return result | {"schema_version": 2}


# by version: makes the values of the next one
MIGRATIONS: dict[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {1: _from_1}


@cache
def _adapter() -> TypeAdapter[RunRecord]:
    return TypeAdapter(RunRecord)

"""The record of a run, ``result.json``: what it holds, and how records of older versions are read."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from statprune.data.windows import TextOrigin
from statprune.errors import StatpruneError
from statprune.evaluation.accuracy import ZeroShotResult
from statprune.model.coverage import Coverage
from statprune.model.opened import Opened
from statprune.model.quantization import QuantizedWeights
from statprune.model.saved import SavedModel
from statprune.runs.environment import Environment
from statprune.runs.inputs import InputIdentity
from statprune.runs.migrations import SCHEMA_VERSION, migrated

CALIBRATION_PASS = "the calibration pass"  # in ``reused``: its seconds hold no observing of the dense model
PRUNING_PHASES = ("observe", "solve", "propagate")  # of a record's seconds: those that pruning itself takes


@dataclass(frozen=True)
class PerplexityResult:
    """Perplexity on one dataset, and what it was measured on.

    Attributes:
        dense: perplexity of the dense model: exp of the mean window loss; None where it is not finite.
        pruned: perplexity of the model that the run ends with: the pruned one, or the dense one again where nothing
            was pruned.
        seq_len: length of a window [tokens].
        windows: how many there are [windows].
        tokens: predicted tokens of all windows, one less than each has [tokens].
        source: name of the text's source.
        sha256: hash of the text.
        windows_with_bos: how many windows begin with BOS, as ``TextOrigin`` counts them [windows].
        text_tokens: length of the whole text; None where it was not tokenised whole [tokens].
        skipped_rows: rows of a table that had no text [rows].
    """

    dense: float | None
    pruned: float | None
    seq_len: int
    windows: int
    tokens: int
    source: str
    sha256: str
    windows_with_bos: int | None
    text_tokens: int | None = None
    skipped_rows: int = 0


@dataclass(frozen=True)
class FidelityResult:
    """How far the pruned model's predictions are from the dense model's on one dataset; means over its windows.

    Attributes:
        divergence: Kullback-Leibler divergence (KL) from the dense model's next-token distribution; None where it
            is not finite [nats per token].
        agreement: share of tokens for which both models find the same next token most likely; None where the
            divergence is [fraction].
        windows: how many were compared [windows].
    """

    divergence: float | None
    agreement: float | None
    windows: int


@dataclass(frozen=True)
class QuantizedModelResult:
    """One model with quantised matrices.

    Attributes:
        weights: what quantising changed.
        perplexity: by dataset, on the windows of the run's own; None where it is not finite.
        fidelity: to the dense model that is not quantised, by dataset; None where it was not measured.
    """

    weights: QuantizedWeights
    perplexity: dict[str, float | None]
    fidelity: dict[str, FidelityResult] | None


@dataclass(frozen=True)
class QuantizationResult:
    """The run's models, quantised.

    Attributes:
        scheme: int8 or int4.
        bits: of an integer.
        group_size: how many consecutive inputs of a row share a scale; None: all.
        library: what quantised, and its version.
        model_bytes: of all tensors of the model that is not quantised, in its dtypes; zeros take as much as others.
        dense: the dense model, quantised.
        pruned: the pruned model, quantised; None where nothing was pruned.
    """

    scheme: str
    bits: int
    group_size: int | None
    library: str
    model_bytes: int
    dense: QuantizedModelResult
    pruned: QuantizedModelResult | None


@dataclass(frozen=True)
class SparsityResult:
    """Sparsity as it was wanted and as it was counted.

    Attributes:
        target: share of the pruned matrices' weights that their patterns remove, before rounding down; None where
            nothing was pruned (0 in records of older versions) [fraction].
        achieved: exact zeros among all matrix weights of all blocks, counted on the stored weights [fraction].
        blocks: exact zeros among the weights of each block's pruned matrices, block by block; None where it has none
            [fraction].
    """

    target: float | None
    achieved: float
    blocks: list[float | None]


@dataclass(frozen=True)
class CorrectionResult:
    """What a compensation that judges itself did; means are over the matrices that it judged.

    Attributes:
        corrected: how many it changed [matrices].
        unchanged: how many it left as they were [matrices].
        output_error_before: mean relative output error on held-out rows, before the correction [fraction].
        output_error_after: the same after it [fraction].
        mean_shift_before: how far the outputs' means were moved, as a share of their norm; mean over the matrices
            [fraction].
        mean_shift_after: the same after the correction [fraction].
    """

    corrected: int
    unchanged: int
    output_error_before: float | None
    output_error_after: float | None
    mean_shift_before: float | None
    mean_shift_after: float | None


@dataclass(frozen=True)
class MemoryResult:
    """Bytes at the peak of the largest process, measured and predicted; of the attempt that pruned.

    Where the system can't measure a peak anew, it counts from the start of the process.

    Attributes:
        peak_host_bytes: peak of the host, after the plan was made [bytes].
        predicted_host_bytes: the prediction for it [bytes].
        load_peak_host_bytes: peak of the host while the model was loaded [bytes].
        peak_device_bytes: peak of the GPU; 0 without one [bytes].
        predicted_device_bytes: the prediction for it [bytes].
        activations: where the windows' hidden states waited between blocks: device, host or disk; none where no
            window had to wait.
        dense_states: where the dense model's last hidden states waited for fidelity: device, host or disk; None where
            none had to wait.
    """

    peak_host_bytes: int
    predicted_host_bytes: int
    load_peak_host_bytes: int
    peak_device_bytes: int
    predicted_device_bytes: int
    activations: str
    dense_states: str | None = None


@dataclass(frozen=True)
class Pending:
    """What a run still lacks.

    Attributes:
        evaluation: what is still to be measured: zero_shot.
        model: folder of the pruned model within the run's; None where it could not be saved.
    """

    evaluation: str
    model: str | None


@dataclass(frozen=True)
class PushedModel:
    """Where a run's saved model was sent.

    Attributes:
        repository: of the hub, OWNER/NAME.
        commit: its address there.
        date: when it was sent (UTC, ISO 8601).
    """

    repository: str
    commit: str
    date: str


@dataclass(frozen=True)
class RunRecord:
    """What one run was, measured and took.

    Attributes:
        config: the resolved configuration.
        config_hash: hash over everything in it that can change a number.
        date: when the record was written (UTC, ISO 8601).
        environment: versions, commit and machine, of the attempt that pruned.
        perplexity: by dataset.
        zero_shot: None where no task was run.
        fidelity: to the dense model, by dataset; None where it was not measured.
        quantization: the dense and the pruned model, quantised; None where that was not asked for.
        sparsity: wanted and counted.
        coverage: how many matrix weights were pruned, and which were not.
        correction: None where no compensation judged itself.
        calibration: where the calibration windows come from; None where nothing was pruned.
        seconds: by phase that succeeded, of all attempts; what was reused took none. Those of pruning (observe, solve,
            propagate; allocate) are, of an attempt that was cut off, up to its last kept block
            [seconds].
        reused: what the run did not have to do, in words.
        memory: measured and predicted peaks.
        opened: what opening the model left out or was warned of; None in records of versions that did not keep it.
        pending: what the run still lacks; None where it is finished.
        resumed_blocks: how many an earlier attempt pruned, and this one did not prune again [blocks].
        saved: the model that was saved and compared with the memory; None where none was, or an older version did it.
        paths: absolute paths of the local files and folders by the configuration's keys, and the run's own `folder`;
            empty in records of versions that did not keep them.
        inputs: what was read, by key: model.path, calibration.path, evaluation.path, evaluation.tasks.0 and so on;
            empty in records of versions that did not keep it.
        files: sha256 of the run's other files that are read again, by name below its folder, as the record was
            written; empty in records of versions that did not keep them.
        resumed: versions, commit and machine of the attempt that asked the tasks, where another one pruned and they
            differ; None: they don't.
        pushed: where the saved model was sent last; None: nowhere.
        schema_version: version of the file's schema.
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
    fidelity: dict[str, FidelityResult] | None = None
    quantization: QuantizationResult | None = None
    correction: CorrectionResult | None = None
    calibration: TextOrigin | None = None
    reused: list[str] = field(default_factory=list)
    opened: Opened | None = None
    pending: Pending | None = None
    resumed_blocks: int = 0
    saved: SavedModel | None = None
    paths: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, InputIdentity] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    resumed: Environment | None = None
    pushed: PushedModel | None = None
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


@cache
def _adapter() -> TypeAdapter[RunRecord]:
    return TypeAdapter(RunRecord)

"""Every configuration key: name, type, default and unit."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from statprune.core.compensation import Compensation
from statprune.core.methods import get_method
from statprune.core.patterns import Group, Pattern
from statprune.evaluate.tasks import TaskOptions
from statprune.model.loading import ModelSource
from statprune.pruning.allocation import Allocation
from statprune.pruning.spec import Propagation, PruneSpec
from statprune.walk.activations import Placement

# keys that change no number
NOT_IN_HASH = ("name", "tracking", "verbose", "save_model", "offload", "activations", "rerun", "cache")
# keys of evaluation that mean nothing where no task is run
TASK_KEYS = ("tasks", "metric", "num_fewshot", "limit", "task_batch_size", "add_bos_token", "chat_template")


class Dtype(Enum):
    """Precision of the weights; auto is the checkpoint's own."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class AllocationName(Enum):
    """How an unstructured ratio is spread over the blocks."""

    uniform = "uniform"
    owl = "owl"


class Offload(Enum):
    """Where blocks wait that are not being computed; none is the device."""

    none = "none"
    cpu = "cpu"
    disk = "disk"


@dataclass
class ModelConfig:
    """Which model, and which of its matrices stay dense.

    Attributes:
        path: hub id, local folder, .gguf file or pkg://package/file.
        dtype: precision of the weights.
        revision: hub branch, tag or commit.
        trust_remote_code: run code that comes with the model.
        exclude: regular expressions; a matrix stays dense whose full name one of them is found in.
        prune_routers: prune the matrices that route tokens to experts, too.
    """

    path: str = ""
    dtype: Dtype = Dtype.auto
    revision: str | None = None
    trust_remote_code: bool = False
    exclude: list[str] = field(default_factory=list)
    prune_routers: bool = False

    @property
    def source(self) -> ModelSource:
        """What is opened."""
        return ModelSource(self.path, self.dtype.value, self.revision, self.trust_remote_code)


@dataclass
class CalibrationConfig:
    """Calibration windows.

    Attributes:
        source: bundled, text, wikitext2 or c4.
        samples: number of windows.
        seq_len: tokens of a window.
        batch_size: windows that run together; None: as many as keep the device busy.
        path: the text file, or a local copy of the hub's dataset folder.
        min_expert_tokens: an expert that fewer tokens reach is pruned with the statistics of its mixture.
    """

    source: str = "bundled"
    samples: int = 128
    seq_len: int = 2048
    batch_size: int | None = None
    path: str | None = None
    min_expert_tokens: int = 32


@dataclass
class SparsityConfig:
    """The pattern: either ``ratio`` (unstructured, 0.5 where nothing is given) or ``keep`` and ``of`` (N:M).

    Attributes:
        ratio: fraction removed, in [0, 1).
        group: what weights are compared within; None: as the method's authors do.
        keep: weights kept in each group of ``of`` inputs.
        of: size of the groups.
        allocation: how an unstructured ratio is spread over the blocks.
        outlier_threshold: OWL's M.
        max_deviation: OWL's λ.
        layer_ratios: explicit ratios: a list, one per block, or {regular expression: ratio}.
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
    """What is measured: perplexity on datasets, zero-shot accuracy on lm-eval's tasks.

    Attributes:
        name: perplexity, zero_shot, full or none.
        datasets: bundled, text, wikitext2, c4.
        seq_len: tokens of an evaluation window.
        max_windows: at most so many windows of each dataset; None: all.
        batch_size: windows that run together.
        path: the text file, or a local copy of the hub's dataset folder.
        tasks: task sets, names, and folders of task YAMLs.
        metric: stands for each task that has it.
        num_fewshot: examples in each prompt; None: as each task defines.
        limit: documents of each task, at most; None: all.
        task_batch_size: requests that run together.
        add_bos_token: whether prompts begin with BOS; None: as the tokenizer does.
        chat_template: whether prompts are messages of a chat.
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
        """The path that a dataset reads: ``path`` is for text, or else for the only one of wikitext2 and c4."""
        candidates = [name for name in self.datasets if name != "bundled"]
        owner = "text" if "text" in candidates else candidates[0] if len(candidates) == 1 else None
        return self.path if source == owner else None

    @property
    def task_options(self) -> TaskOptions:
        """How tasks are asked."""
        return TaskOptions(
            metric=self.metric,
            num_fewshot=self.num_fewshot,
            limit=self.limit,
            batch_size=self.task_batch_size,
            add_bos_token=self.add_bos_token,
            chat_template=self.chat_template,
        )


@dataclass
class TrackingConfig:
    """Weights & Biases.

    Attributes:
        mode: offline, online or disabled.
        project: W&B's project.
        entity: W&B's entity; None: your own.
        group: of runs; None: the run's name.
        job_type: of the W&B run.
        tags: besides method, pattern and model.
        notes: of the W&B run.
        artifacts: masks and model, which are uploaded with the run.
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
    """Keys outside of groups.

    Attributes:
        name: first folder below outputs/.
        propagation: which inputs matrices see.
        device: auto, cpu, cuda or cuda:i.
        offload: where blocks wait that are not being computed.
        activations: where calibration windows wait between blocks.
        seed: of every random choice.
        save_model: keep the pruned model.
        verbose: print a line per block.
        rerun: run again although this very run is finished.
        cache: folder of dense results that runs share; None: none.
    """

    name: str = "default"
    propagation: Propagation = Propagation.pruned
    device: str = "auto"
    offload: Offload = Offload.none
    activations: Placement = Placement.auto
    seed: int = 0
    save_model: bool = False
    verbose: bool = False
    rerun: bool = False
    cache: str | None = None


@dataclass
class RunConfig:
    """One run, checked.

    Attributes:
        model: which model.
        calibration: which windows it is calibrated on.
        sparsity: as it was asked for.
        pattern: what is kept.
        allocation: how the pattern's ratio is spread; None: every matrix has it.
        method: name of the method; dense prunes nothing.
        method_options: the method's options; None for dense.
        compensation: ready to use; None: none.
        evaluation: what is measured.
        tracking: Weights & Biases.
        settings: keys outside of groups.
    """

    model: ModelConfig
    calibration: CalibrationConfig
    sparsity: SparsityConfig
    pattern: Pattern
    allocation: Allocation | None
    method: str
    method_options: Any
    compensation: Compensation | None
    evaluation: EvaluationConfig
    tracking: TrackingConfig
    settings: Settings

    @property
    def is_dense(self) -> bool:
        """Whether the run only measures the model."""
        return self.method == "dense"

    @property
    def spec(self) -> PruneSpec:
        """What ``prune`` is asked to do; not for a dense run."""
        options = self.method_options
        return PruneSpec(
            method=get_method(self.method, **{key: getattr(options, key) for key in options.__dataclass_fields__}),
            pattern=self.pattern,
            compensation=self.compensation,
            allocation=self.allocation,
            propagation=self.settings.propagation,
            min_expert_tokens=self.calibration.min_expert_tokens,
            seed=self.settings.seed,
        )

    def resolved(self) -> dict[str, Any]:
        """The configuration as plain values, as the record holds it."""
        options = asdict(self.method_options) if self.method_options is not None else {}
        evaluation = asdict(self.evaluation)
        if not self.evaluation.tasks:
            evaluation = {key: value for key, value in evaluation.items() if key not in TASK_KEYS}
        chosen: Any = self.compensation  # a dataclass, which its protocol can't say
        compensation = {"name": "none"} if chosen is None else {"name": chosen.name, **asdict(chosen)}
        values = {
            **asdict(self.settings),
            "model": asdict(self.model),
            "calibration": asdict(self.calibration),
            "sparsity": asdict(self.sparsity),
            "method": {"name": self.method, **options},
            "compensation": compensation,
            "evaluation": evaluation,
            "tracking": asdict(self.tracking),
        }
        result: dict[str, Any] = json.loads(json.dumps(values, default=lambda value: value.value))
        return result

    def hash(self) -> str:
        """16 hex digits over everything that can change a number."""
        values = {key: value for key, value in self.resolved().items() if key not in NOT_IN_HASH}
        return digest(values, 16)


def digest(value: object, digits: int) -> str:
    """Hexadecimal digits of a hash of nested plain values; anything else is hashed as ``str`` writes it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:digits]

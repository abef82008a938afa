"""The configuration's sections: every key with its name, type, default and unit."""

from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from statprune.core.gram import GramPrecision
from statprune.core.patterns import Group
from statprune.data.sources import field_owner, path_owner
from statprune.data.token_windows import Bos
from statprune.evaluation.tasks import TaskOptions
from statprune.model.converted import converted_models
from statprune.model.loading import ModelSource
from statprune.model.quantization import BITS, Scheme
from statprune.pruning.allocation import ALWAYS_RECORDED, UNIFORM
from statprune.pruning.spec import Propagation
from statprune.system.options import PlainValues
from statprune.walk.activations import Placement


class Dtype(Enum):
    """Precision of the weights; auto is the checkpoint's own."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Offload(Enum):
    """Where blocks wait that are not being computed; none is the device."""

    none = "none"
    cpu = "cpu"
    disk = "disk"


class Checkpoint(Enum):
    """Whether pruned blocks are kept on disk until the run ends; auto is explained at its key."""

    auto = "auto"
    true = "true"
    false = "false"


class SaveModel(Enum):
    """Whether the pruned model is kept, and how.

    false: it is not. true: as ``from_pretrained`` opens it. compressed: its sparse matrices as bits and the weights
    that are left, which ``statprune decompress`` and ``load_compressed`` read.
    """

    false = False
    true = True
    compressed = "compressed"


@dataclass
class ModelConfig:
    """Which model, and which of its matrices stay dense.

    Attributes:
        path: hub id, local folder, .gguf file or pkg://package/file.
        dtype: precision of the weights; auto: the checkpoint's own.
        revision: branch, tag or commit on the hub; None: the main branch.
        trust_remote_code: run code that comes with the model.
        exclude: regular expressions: a matrix stays dense whose full name one of them is found in.
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
        source: where the text comes from: bundled, text, wikitext2, c4, ptb, or a plugin's; calibration=NAME sets it.
        samples: how many windows are used [windows].
        seq_len: length of a window [tokens].
        batch_size: how many windows run together; None: as many as keep the device busy [windows].
        path: the text file, table, or folder or pattern of either, or a local copy of the hub's folder; None: none.
        field: the column of tables that is read; None: text, or else messages or conversations.
        bos: which windows begin with BOS: auto (what the tokenizer makes of the whole text), always (each then has
            seq_len - 1 tokens of the text), never.
        min_expert_tokens: an expert that fewer tokens reach is pruned with the statistics of its mixture [tokens].
    """

    source: str = "bundled"
    samples: int = 128
    seq_len: int = 2048
    batch_size: int | None = None
    path: str | None = None
    field: str | None = None
    bos: Bos = Bos.auto
    min_expert_tokens: int = 32


@dataclass
class SparsityConfig:
    """The pattern: either ``ratio`` (unstructured, 0.5 where nothing is given) or ``keep`` and ``of`` (N:M).

    Attributes:
        ratio: how much is removed, from 0 to below 1; None: 0.5, unless N:M or ratios are given [fraction].
        group: what weights are compared within, unstructured; None: the method's own, a row for most.
        keep: N of N:M: how many are kept in each group of inputs; None: not N:M [weights].
        of: M of N:M: size of the groups; None: not N:M [weights].
        pattern: name of a plugin's pattern; None: unstructured or N:M.
        allocation: how a ratio is spread over the blocks: uniform, owl, alpha, or a plugin's.
        layer_ratios: explicit ratios, each from 0 to below 1; a matrix takes the ratio of its block, or of the first
            expression found in its full name, and else ``ratio``; None: ``allocation`` decides [fraction].
        options: other keys: those of the allocation, and those of a plugin's pattern.
    """

    ratio: float | None = None
    group: Group | None = None
    keep: int | None = None
    of: int | None = None
    pattern: str | None = None
    allocation: str = UNIFORM
    layer_ratios: Annotated[Any, "list of floats, one per block, or {regular expression: float}, or null"] = None
    options: PlainValues = field(default_factory=dict)

    def resolved(self) -> PlainValues:
        """As plain values, flat."""
        own = asdict(self)
        own |= ALWAYS_RECORDED | own.pop("options")
        if self.pattern is None:
            del own["pattern"]
        return own


@dataclass
class EvaluationConfig:
    """What is measured: perplexity on datasets, zero-shot accuracy on lm-eval's tasks.

    Attributes:
        name: the choice itself, perplexity, zero_shot, full or none: give evaluation=NAME.
        datasets: of which perplexity is measured: bundled, text, wikitext2, c4, ptb, and plugins'.
        seq_len: length of an evaluation window [tokens].
        max_windows: how many of each dataset, at most; None: all [windows].
        batch_size: how many windows run together [windows].
        bos: which windows begin with BOS, as for calibration.
        fidelity: where perplexity is measured of a pruned model, also measure how far its predictions are from the
            dense model's: Kullback-Leibler divergence and top-1 agreement.
        path: the text file, table, or folder or pattern of either, or a local copy of the hub's folder; None: none.
        tasks: of lm-eval: names (bundled is ours), folders of task YAMLs, and the sets paper, wanda7, denoise_rotator5
            and permllm5.
        field: the column of tables that is read; None: text, or else messages or conversations.
        metric: stands for each task that has it, acc or acc_norm, unless its set says another; all are recorded.
        num_fewshot: how many examples are in each prompt; None: as each task defines [examples].
        limit: how many of each task are asked, at most; None: all [documents].
        task_batch_size: how many requests run together [requests].
        add_bos_token: whether prompts begin with BOS; None: as the tokenizer does.
        chat_template: whether prompts are messages of a chat.
        trust_task_code: run code that task YAMLs of your own bring along.
    """

    name: str = "perplexity"
    datasets: list[str] = field(default_factory=list)
    seq_len: int = 2048
    max_windows: int | None = None
    batch_size: int = 4
    bos: Bos = Bos.auto
    fidelity: bool = True
    path: str | None = None
    tasks: list[str] = field(default_factory=list)
    field: str | None = None
    metric: str = "acc"
    num_fewshot: int | None = None
    limit: int | None = None
    task_batch_size: int = 16
    add_bos_token: bool | None = None
    chat_template: bool = False
    trust_task_code: bool = False

    def path_of(self, source: str) -> str | None:
        """The path that a dataset reads: the one that needs a path has it, or else the only one that may have one."""
        return self.path if source == path_owner(self.datasets) else None

    def field_of(self, source: str) -> str | None:
        """The column that a dataset reads, if it is the one that reads columns."""
        return self.field if source == field_owner(self.datasets) else None

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
            trust_task_code=self.trust_task_code,
        )


@dataclass
class QuantizeConfig:
    """Quantised models that are measured beside the dense and the pruned one: perplexity and fidelity, no tasks.

    Attributes:
        name: the choice itself, none, int8 or int4: give quantize=NAME.
        group_size: how many consecutive inputs of a row share a scale; it divides those of every matrix; None: all of
            a row do [weights].
    """

    name: str = "none"
    group_size: int | None = None

    @property
    def scheme(self) -> Scheme | None:
        """How matrices are quantised; None: they are not."""
        return Scheme(self.name, self.group_size) if self.name in BITS else None


@dataclass
class TrackingConfig:
    """Weights & Biases.

    Attributes:
        mode: offline (files in the run's folder), online or disabled.
        project: W&B's project.
        entity: W&B's entity, a person or a team; None: your own.
        group: W&B's group of runs; None: the key ``name``.
        job_type: W&B's type of the run.
        tags: W&B's tags, besides method, pattern and model.
        notes: W&B's notes on the run; None: none.
        artifacts: what is uploaded with the run: masks, model (as save_model keeps it).
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
        name: the folder below outputs/ that runs are written to.
        propagation: which inputs matrices see.
        device: auto, cpu, cuda, or one of several GPUs: cuda:0.
        offload: where blocks wait that are not being computed; none: on the device.
        activations: where calibration windows wait between blocks; auto: the first of the others that has room.
        checkpoint: keep pruned blocks on disk until the run ends, so that the same command goes on after a kill; auto:
            with offload=disk, and where pruning is predicted to take more than ten minutes.
        seed: what every random choice starts from.
        save_model: keep the pruned model, in the run's folder.
        push_to_hub: repository of the Hugging Face hub, OWNER/NAME, that the saved model is sent to once the run is
            recorded; None: none.
        push_private: make that repository a private one, where it is not there yet.
        verbose: print a line per block.
        rerun: run again although this very run is finished.
        gram_precision: in what float32 inputs are multiplied for Gram matrices.
        verify_inputs: hash all bytes of what is read, and compare them even where size and time are the same.
        cache: folder of what runs share: results of dense models, converted GGUF models; None: none.
        plugins: Python files and modules that are imported first: they register choices of your own.
    """

    name: str = "default"
    propagation: Propagation = Propagation.pruned
    device: str = "auto"
    offload: Offload = Offload.none
    activations: Placement = Placement.auto
    checkpoint: Checkpoint = Checkpoint.auto
    seed: int = 0
    save_model: SaveModel = SaveModel.false
    push_to_hub: str | None = None
    push_private: bool = False
    verbose: bool = False
    rerun: bool = False
    gram_precision: GramPrecision = GramPrecision.float32
    verify_inputs: bool = False
    cache: str | None = None
    plugins: list[str] = field(default_factory=list)

    @property
    def saves_model(self) -> bool:
        """Whether the pruned model is kept."""
        return self.save_model is not SaveModel.false

    @property
    def compresses_model(self) -> bool:
        """Whether it is kept compressed."""
        return self.save_model is SaveModel.compressed

    @property
    def converted_models(self) -> Path | None:
        """Where GGUF models are kept once they are converted; None: nowhere."""
        return converted_models(self.cache)

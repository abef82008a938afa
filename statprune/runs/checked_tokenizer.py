"""What is wrong with a run's tokenizer, found before its model is opened, which may take long."""

from typing import TYPE_CHECKING

from statprune.config.schema import RunConfig
from statprune.data.bundled import bundled_topics
from statprune.data.chats import template_problem
from statprune.data.sources import CALIBRATION, EVALUATION, get_source
from statprune.data.text_file import TextFile
from statprune.data.token_windows import Bos
from statprune.errors import DataError, ModelError
from statprune.evaluation.tasks import TaskSuite
from statprune.model.tokenizer import configured_vocabulary, open_tokenizer
from statprune.runs.context import RunContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = 20_000  # characters of prose


def check_tokenizer_alone(context: RunContext, suite: TaskSuite | None) -> None:
    """Check the tokenizer of a run that asks tasks, reads conversations or wants BOS; others ask nothing special of it.

    Args:
        context: the run.
        suite: its tasks; None where there are none.

    Raises:
        ModelError: the tasks can't be asked with it, it has no BOS, or it is another model's.
        DataError: conversations can't be written with it.
    """
    config = context.config
    paths, bos = _chats(config), _bos_everywhere(config)
    if suite is None and not paths and not bos:
        return
    tokenizer = open_tokenizer(config.model.source, config.settings.converted_models)
    if tokenizer is None:
        return
    if bos and tokenizer.bos_token_id is None:
        raise ModelError(
            f"{bos[0]}=always can't be followed: the tokenizer of model.path={config.model.path} has no BOS token; "
            f"give {bos[0]}=auto"
        )
    if suite is None and not paths:
        return
    if problem := next((problem for path in paths if (problem := template_problem(tokenizer, path))), None):
        raise DataError(problem)
    _check_vocabulary(config, tokenizer)
    if suite is not None:
        from statprune.evaluation.prompts import check_tokenizer

        check_tokenizer(suite, tokenizer, config.evaluation.task_options)


def _bos_everywhere(config: RunConfig) -> list[str]:
    """The keys that ask for BOS before every window."""
    asked = {"evaluation.bos": config.evaluation.bos if config.evaluation.datasets else Bos.auto}
    asked["calibration.bos"] = Bos.auto if config.is_dense else config.calibration.bos
    return [key for key, bos in asked.items() if bos is Bos.always]


def _chats(config: RunConfig) -> list[str]:
    """The keys and paths of conversations that the run reads."""
    calibration, evaluation = config.calibration, config.evaluation
    read = [(EVALUATION, name, evaluation.path_of(name), evaluation.field_of(name)) for name in evaluation.datasets]
    if not config.is_dense:
        read.append((CALIBRATION, calibration.source, calibration.path, calibration.field))
    return [
        f"{part}.path={path}"
        for part, name, path, field in read
        if isinstance(source := get_source(name, field), TextFile) and source.holds_chats(part, path)
    ]


def _check_vocabulary(config: RunConfig, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise ModelError where plain English has tokens beyond those that the model's configuration names."""
    size = configured_vocabulary(config.model.source)
    if size is None:
        return
    text = "\n\n".join(bundled_topics(EVALUATION))[:PROBE]
    largest = max(tokenizer(text, verbose=False)["input_ids"], default=0)
    if largest >= size:
        raise ModelError(
            f"the tokenizer of model.path={config.model.path} has the token {largest} for plain English, and the "
            f"model's vocab_size is {size}; give the tokenizer that belongs to the model"
        )

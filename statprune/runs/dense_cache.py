"""Results of the dense model that other runs can use, as files; and what tells windows apart."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from statprune.config.schema import RunConfig
from statprune.errors import DamagedError
from statprune.evaluation.accuracy import Answers
from statprune.runs.checksums import sealed, unsealed
from statprune.runs.inputs import MODEL, Inputs, input_key
from statprune.system.devices import device_name
from statprune.system.distributed import size
from statprune.system.files import remove_abandoned, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Codec(Generic[T]):
    """How a result is stored.

    Attributes:
        what: the result, in words.
        folder: within the cache.
        encode: makes plain values of the result.
        decode: makes the result of plain values; raises ValueError, TypeError, AttributeError or KeyError where they
            are damaged or not worth storing.
    """

    what: str
    folder: str
    encode: Callable[[T], object]
    decode: Callable[[Mapping[str, Any]], T]


def _losses_from_json(values: Mapping[str, Any]) -> dict[str, Tensor]:
    if not values or not all(math.isfinite(sum(losses)) for losses in values.values()):
        raise ValueError("not finite")
    return {source: torch.tensor(losses, dtype=torch.float64, device="cpu") for source, losses in values.items()}


def _losses_to_json(losses: dict[str, Tensor]) -> dict[str, list[float]]:
    return {source: values.tolist() for source, values in losses.items()}


LOSSES: Codec[dict[str, Tensor]] = Codec("the dense perplexity", "dense", _losses_to_json, _losses_from_json)
ANSWERS: Codec[Answers] = Codec("the dense accuracies", "zero_shot", Answers.to_json, Answers.from_json)


@dataclass(frozen=True)
class DenseCache:
    """Where results of one dense model are stored.

    Attributes:
        folder: None: nowhere, since the model can't be told from others or the run uses no cache.
        model_key: what tells the model, its machine and software from others; a result's key begins with it.
    """

    folder: Path | None
    model_key: list[object]

    def read(self, codec: Codec[T], name: str) -> T | None:
        """The stored result; None where there is none, or where it is damaged, which is logged."""
        path = self._path(codec, name)
        if path is None:
            return None
        try:
            stored = unsealed(json.loads(path.read_text(encoding="utf-8")), is_required=True)
            if stored["of"] != name:  # a copy of another result's file
                raise DamagedError("it is another result's")
            return codec.decode(stored["value"])  # type: ignore[arg-type]  # a mapping, or an error that is caught
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s can't be read (%s) and is not used", path, error.strerror)
            return None
        except (ValueError, TypeError, AttributeError, KeyError):
            log.warning("%s is damaged and not used", path)
            return None

    def write(self, codec: Codec[T], name: str, value: T) -> None:
        """Store a result, if it is worth storing; a failure costs a warning."""
        path = self._path(codec, name)
        if path is None:
            return
        values: Any = codec.encode(value)
        try:
            codec.decode(values)
        except ValueError:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(path.parent)
            write_json(path, sealed({"of": name, "value": values}))
        except OSError as error:
            log.warning("%s could not be stored in %s (%s)", codec.what, path.parent, error.strerror)

    def _path(self, codec: Codec[T], name: str) -> Path | None:
        return None if self.folder is None else self.folder / codec.folder / f"{name}.json"


def dense_cache(config: RunConfig, inputs: Inputs, model: "PreTrainedModel", device: torch.device) -> DenseCache:
    """Where results of a run's dense model are stored."""
    model_identity = input_key(inputs, MODEL)
    folder = Path(config.settings.cache) if config.settings.cache and model_identity and size() == 1 else None
    dtype = str(next(model.parameters()).dtype)
    return DenseCache(folder, [Path(config.model.path).name, model_identity, dtype, device_name(device), software()])


def software() -> list[object]:
    """What the last bits of a loss depend on besides model and windows."""
    return [*(metadata.version(name) for name in ("statprune", "torch", "transformers")), torch.get_num_threads()]


def fingerprint(ids: Tensor) -> list[object]:
    """What tells token windows apart."""
    return [list(ids.shape), hashlib.sha256(ids.numpy().tobytes()).hexdigest()]

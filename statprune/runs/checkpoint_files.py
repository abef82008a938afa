"""The files of a pruning checkpoint: one header, and for each pruned block its weights and a description.

A description is written last and names its files with their SHA-256, so that a block is whole or not there. Headers and
descriptions carry a checksum of their own.
"""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from statprune.config.schema import digest
from statprune.pruning.checkpoint import FinishedBlock
from statprune.pruning.report import MatrixReport
from statprune.system.files import flush, link_or_copy, sha256_of, write_json
from statprune.system.options import PlainValues

HEADER = "checkpoint.json"
NOT_FINITE = ("inf", "-inf", "nan")  # numbers that JSON lacks, as texts


@dataclass(frozen=True)
class KeptBlock:
    """A pruned block on disk.

    Attributes:
        finished: its reports and seconds.
        own: file of the weights that were written for the checkpoint; None: there are none.
        linked: files of the block's shard, where blocks are on disk anyway; the last has the model's names.
        saved: files of the saved model, where the block was not kept before that was written.
    """

    finished: FinishedBlock
    own: Path | None
    linked: list[Path]
    saved: list[Path] = field(default_factory=list)

    def weights(self) -> dict[str, Path]:
        """The file of each weight, by full name."""
        files = [*self.saved, *self.linked[-1:], *([self.own] if self.own is not None else [])]
        result: dict[str, Path] = {}
        for path in files:
            with safe_open(path, "pt") as file:
                result |= dict.fromkeys(file.keys(), path)
        return result


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one run's checkpoint.

    Attributes:
        folder: where they are.
    """

    folder: Path

    def read_header(self) -> PlainValues | None:
        """What ``write_header`` wrote; None where there is none, or where it is damaged."""
        return _read_signed(self.folder / HEADER)

    def write_header(self, values: PlainValues) -> None:
        """Begin a checkpoint.

        Args:
            values: plain ones.

        Raises:
            OSError: it can't be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_signed(self.folder / HEADER, values)

    def write_block(
        self, index: int, key: str, weights: Mapping[str, Tensor], shard: Sequence[Path], finished: FinishedBlock
    ) -> None:
        """Keep a pruned block.

        Args:
            index: of the block.
            key: tells the checkpoint from others.
            weights: on the host, by full name.
            shard: files of other weights of the block, which get a second name here.
            finished: its reports and seconds.

        Raises:
            OSError or SafetensorError: it can't be written.
        """
        files = []
        if weights:
            own = self._path(index, "safetensors")
            save_file(dict(weights), own)
            files.append(own)
        for number, path in enumerate(shard):
            linked = self._path(index, f"shard-{number}.safetensors")
            linked.unlink(missing_ok=True)
            link_or_copy(path, linked)
            files.append(linked)
        for path in files:
            flush(path)
        description = {
            "key": key,
            "files": {path.name: sha256_of(path) for path in files},
            "has_own": bool(weights),
            "reports": [_to_plain(report) for report in finished.reports],
            "seconds": finished.seconds,
        }
        _write_signed(self._path(index, "json"), description)
        flush(self.folder)

    def link_saved(self, index: int, key: str, saved: Mapping[Path, str], finished: FinishedBlock) -> None:
        """Keep a pruned block by a second name of the saved model's files, which takes no room.

        Args:
            index: of the block.
            key: tells the checkpoint from others.
            saved: the files that hold its weights under the model's names, each with its SHA-256.
            finished: its reports and seconds.

        Raises:
            OSError: the file system has no hard links, or is full.
        """
        hashes = {}
        for number, (path, sha256) in enumerate(saved.items()):
            linked = self._path(index, f"saved-{number}.safetensors")
            linked.unlink(missing_ok=True)
            os.link(path, linked)
            hashes[linked.name] = sha256
        reports = [_to_plain(report) for report in finished.reports]
        description = {"key": key, "files": hashes, "has_own": False, "is_saved": True, "reports": reports}
        _write_signed(self._path(index, "json"), description | {"seconds": finished.seconds})

    def read_blocks(self, key: str) -> list[KeptBlock]:
        """The whole blocks, from the first one to the first that is missing or damaged."""
        blocks: list[KeptBlock] = []
        hashes: dict[tuple[int, int], str] = {}  # several blocks may be in one file
        while (block := self._read_block(len(blocks), key, hashes)) is not None:
            blocks.append(block)
        return blocks

    def has_description(self, index: int) -> bool:
        """Whether a block was kept once, whole or damaged."""
        return self._path(index, "json").exists()

    def remove_after(self, blocks: int) -> None:
        """Remove what there is of later blocks than the first ``blocks``."""
        keep = tuple(f"{_stem(index)}." for index in range(blocks))
        for path in self.folder.iterdir():
            if path.name != HEADER and not path.name.startswith(keep):
                path.unlink()

    def remove(self) -> None:
        """Remove the checkpoint: the header first, without which nobody reads the rest."""
        (self.folder / HEADER).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read_block(self, index: int, key: str, hashes: dict[tuple[int, int], str]) -> KeptBlock | None:
        values = _read_signed(self._path(index, "json"))
        if values is None or values.get("key") != key:
            return None
        try:
            paths = [self.folder / name for name in values["files"]]
            if [_hash_once(path, hashes) for path in paths] != list(values["files"].values()):
                return None
            reports = tuple(_from_plain(report) for report in values["reports"])
            finished = FinishedBlock(reports, values["seconds"])
            if values.get("is_saved"):
                return KeptBlock(finished, None, [], paths)
            return KeptBlock(finished, paths[0] if values["has_own"] else None, paths[1 if values["has_own"] else 0 :])
        except (OSError, KeyError, TypeError):
            return None

    def _path(self, index: int, ending: str) -> Path:
        return self.folder / f"{_stem(index)}.{ending}"


def _hash_once(path: Path, hashes: dict[tuple[int, int], str]) -> str:
    """SHA-256 of a file, computed once for all of its names."""
    stat = path.stat()
    place = (stat.st_dev, stat.st_ino)
    if place not in hashes:
        hashes[place] = sha256_of(path)
    return hashes[place]


def _stem(index: int) -> str:
    return f"block-{index:05d}"


def _write_signed(path: Path, values: PlainValues) -> None:
    write_json(path, {"values": values, "sha256": digest(values, 64)})


def _read_signed(path: Path) -> PlainValues | None:
    """The values; None where the file is missing, or not as it was written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        values: PlainValues = content["values"]
        return values if content["sha256"] == digest(values, 64) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _to_plain(report: MatrixReport) -> PlainValues:
    """As ``to_json``, its numbers that are not finite as texts."""
    numbers = report.to_json()
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in numbers.items()
    }


def _from_plain(values: PlainValues) -> MatrixReport:
    texts = ("layer", "expert")
    return MatrixReport.from_json(
        {
            key: float(value) if isinstance(value, str) and key not in texts and value in NOT_FINITE else value
            for key, value in values.items()
        }
    )

"""WikiText-2, C4 and PTB from the hub, or from local copies of its dataset folders, as the usual loaders read them.

WikiText-2 and C4 are read as Wanda's loader does, PTB as SparseGPT's does.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from statprune.data.sources import CALIBRATION, PathUse, Source
from statprune.data.token_windows import TextOrigin, Tokenize, Windows
from statprune.errors import DataError, first_line
from statprune.system.hub import hub_access

if TYPE_CHECKING:
    from datasets import Dataset

DRAWS = 10_000  # of C4's documents for one window, before giving up
EVALUATION_DOCUMENTS = 1100  # of C4, as in Wanda's loader


class HubDataset(Source):
    """A dataset of the hub with one file for each part."""

    path_use = PathUse.optional
    name: ClassVar[str]  # on the hub
    files: ClassVar[Mapping[str, str]]  # by part
    column: ClassVar[str] = "text"
    revision: ClassVar[str | None] = None  # branch that has the files; None: the main one

    def problem(self, part: str, path: str | None) -> str | None:
        """A sentence where the local copy lacks the file."""
        file = self.files[part]
        if path is None or (Path(path).expanduser() / file).is_file():
            return None
        return f"{part}.path={path} has no {file}; give a copy of the hub's folder {self.name}, or no path"

    def files_read(self, part: str, path: str) -> dict[str, Path]:
        """The one file of the local copy that the part is read from."""
        own = Path(path).expanduser() / self.files[part]
        return {own.name: own} if own.is_file() else {}

    def documents(self, part: str, path: str | None) -> Sequence[str]:
        """The documents of one part.

        Args:
            part: calibration or evaluation.
            path: a local copy of the hub's dataset folder; None: the hub or its cache.

        Raises:
            DataError: neither the hub, nor its local cache, nor ``path`` has the file.
        """
        if problem := self.problem(part, path):
            raise DataError(problem)
        return self._from_hub(part) if path is None else self._from_folder(part, Path(path).expanduser())

    def _from_folder(self, part: str, folder: Path) -> Sequence[str]:
        import datasets

        own = folder / self.files[part]
        kind = "parquet" if own.suffix == ".parquet" else "json"
        try:
            return self._texts(datasets.load_dataset(kind, data_files=str(own), split="train"))
        except Exception as error:  # each reader has its own errors for a damaged file or a missing column
            raise DataError(
                f"{own} can't be read ({type(error).__name__}: {first_line(error)}); {part}.path needs an undamaged "
                f"copy of the hub's folder {self.name}"
            ) from error

    def _from_hub(self, part: str) -> Sequence[str]:
        import datasets

        with hub_access() as online:
            try:
                files = {part: self.files[part]}
                table = datasets.load_dataset(self.name, data_files=files, split=part, revision=self.revision)
                return self._texts(table)
            except Exception as error:  # as above
                reason = first_line(error) if online else "no network, and not in the local cache"
                raise DataError(
                    f"the {part} dataset {self.name} can't be loaded ({reason}); connect to the network, or give a "
                    f"local copy of its folder with {part}.path="
                ) from error

    def _texts(self, table: "Dataset") -> Sequence[str]:
        """The column of texts without its nulls, which are counted.

        Raises:
            TypeError: it holds something else.
        """
        dtype = getattr(table.features[self.column], "dtype", "list")
        if dtype not in ("string", "large_string", "null"):
            raise TypeError(f"its column {self.column} is of the type {dtype}")
        self.skipped_rows = table.data.column(self.column).null_count
        texts: Sequence[str] = table[self.column]
        if not self.skipped_rows:
            return texts
        filled = [text for text in texts if text is not None]
        if not filled:
            raise ValueError(f"its column {self.column} has nothing but nulls")
        return filled


class WikiText2(HubDataset):
    """WikiText-2, raw: the training part for calibration, the test part for evaluation."""

    name = "Salesforce/wikitext"
    files: ClassVar[Mapping[str, str]] = {
        "calibration": "wikitext-2-raw-v1/train-00000-of-00001.parquet",
        "evaluation": "wikitext-2-raw-v1/test-00000-of-00001.parquet",
    }


class PTB(HubDataset):
    """Penn Treebank, words alone: the training part for calibration, the test part for evaluation, joined by blanks.

    So SparseGPT's loader reads it; GPTQ's older one takes the validation part and joins it by empty lines, which has
    other perplexities. The hub's main branch has no files but a script, which is not run: its branch of converted files
    is read.
    """

    name = "ptb-text-only/ptb_text_only"
    separator = " "
    column = "sentence"
    revision = "refs/convert/parquet"
    files: ClassVar[Mapping[str, str]] = {
        "calibration": "penn_treebank/train/0000.parquet",
        "evaluation": "penn_treebank/test/0000.parquet",
    }


class C4(HubDataset):
    """C4: a window for each drawn document for calibration; the first validation documents for evaluation."""

    name = "allenai/c4"
    separator = " "
    files: ClassVar[Mapping[str, str]] = {
        "calibration": "en/c4-train.00000-of-01024.json.gz",
        "evaluation": "en/c4-validation.00000-of-00008.json.gz",
    }

    def text(self, part: str, path: str | None) -> str:
        """The first documents as one text."""
        return self.separator.join(self.documents(part, path)[:EVALUATION_DOCUMENTS])

    def calibration_windows(
        self, tokenize: Tokenize, samples: int, seq_len: int, generator: torch.Generator, path: str | None
    ) -> Windows:
        """A window of each drawn document that is longer than one (Wanda's loader)."""
        texts = self.documents(CALIBRATION, path)
        digest = hashlib.sha256()
        windows, starts = [], []
        too_short: set[int] = set()
        for _ in range(samples):
            for _ in range(DRAWS):
                number = int(torch.randint(0, len(texts), (1,), generator=generator, device="cpu"))
                if number in too_short:
                    continue
                ids = tokenize(texts[number])
                if len(ids) > seq_len + 1:
                    break
                too_short.add(number)
            else:
                raise DataError(
                    f"none of {DRAWS} drawn C4 documents is longer than calibration.seq_len={seq_len} tokens; lower it"
                )
            start = int(torch.randint(0, len(ids) - seq_len - 1, (1,), generator=generator, device="cpu"))
            digest.update(texts[number].encode())
            windows.append(torch.tensor(ids[start : start + seq_len], device="cpu"))
            starts.append([number, start])
        origin = TextOrigin(tokenize.source, digest.hexdigest(), starts=starts, skipped_rows=self.skipped_rows)
        return Windows(torch.stack(windows), origin)

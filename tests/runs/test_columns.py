"""The columns that are described are those that a run writes."""

import json
from dataclasses import fields

import pandas

from statprune.pruning.report import JSON_KEYS, MatrixReport
from statprune.runs.columns import DocumentRow, WindowRow
from statprune.runs.store import DOCUMENTS, REPORTS, WINDOWS


def test_columns_are_those_that_a_run_writes(measured):
    _, folder = measured
    assert list(pandas.read_parquet(folder / WINDOWS)) == [item.name for item in fields(WindowRow)]
    assert list(pandas.read_parquet(folder / DOCUMENTS)) == [item.name for item in fields(DocumentRow)]
    line = json.loads((folder / REPORTS).read_text().splitlines()[0])
    assert {JSON_KEYS.get(item.name, item.name) for item in fields(MatrixReport)} - {"diagnostics"} <= line.keys()

"""The record of a run: written and read again, and read where an older version wrote it."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from statprune.errors import StatpruneError
from statprune.runs.pipeline import run
from statprune.runs.record import SCHEMA_VERSION, RunRecord
from tests.helpers.command import tiny_job
from tests.helpers.runs import recorded, schema_1

OLD = ("plain", "mixture", "zero_shot", "pending")
UNCHANGED = ("config", "config_hash", "date", "environment", "sparsity", "seconds", "reused", "memory")


def plain_values(value: object) -> Any:
    """As JSON writes it."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("key", UNCHANGED)
def test_a_part_of_schema_1_that_did_not_change_is_read_as_it_was(name, key):
    # nothing is known of what came later
    added = {"environment": {"has_local_changes": None}, "memory": {"dense_states": None}}.get(key, {})
    assert plain_values(asdict(recorded(name))[key]) == (schema_1(name)[key] | added if added else schema_1(name)[key])


@pytest.mark.parametrize("name", OLD)
def test_perplexity_of_schema_1_has_moved_to_the_top(name):
    record = recorded(name)
    kept = ("dense", "pruned", "seq_len", "windows", "tokens", "source", "sha256")
    assert {source: {key: getattr(result, key) for key in kept} for source, result in record.perplexity.items()} == {
        source: {key: old[key] for key in kept} for source, old in schema_1(name)["metrics"]["perplexity"].items()
    }


@pytest.mark.parametrize("name", ["zero_shot", "pending"])
def test_accuracies_of_schema_1_have_moved_to_the_top(name):
    today, old = plain_values(asdict(recorded(name).zero_shot)), schema_1(name)["metrics"]["zero_shot"]
    del today["protocol"]["requests_with_bos"], old["protocol"]["begins_with_bos"]
    for later in (*today["tasks"].values(), today["mean"]):
        assert later.pop("flips") is None
    assert today == old


@pytest.mark.parametrize("name", ["plain", "mixture"])
def test_a_record_of_schema_1_without_tasks_has_no_accuracies(name):
    assert "zero_shot" not in schema_1(name)["metrics"] and recorded(name).zero_shot is None


@pytest.mark.parametrize("name", OLD)
def test_weights_that_schema_1_called_left_are_skipped(name):
    coverage, old = recorded(name).coverage, schema_1(name)["coverage"]
    assert {kind: asdict(counts) for kind, counts in coverage.kinds.items()} == {
        kind: {("skipped" if key == "left" else key): value for key, value in counts.items()}
        for kind, counts in old.pop("kinds").items()
    }
    assert {key: getattr(coverage, key) for key in old} == old


def test_matrices_that_schema_1_called_left_by_the_correction_are_unchanged():
    old = schema_1("plain")["correction"]
    unchanged = {"unchanged": old.pop("left")}
    assert asdict(recorded("plain").correction) == old | unchanged


@pytest.mark.parametrize("name", ["mixture", "zero_shot", "pending"])
def test_a_record_of_schema_1_without_a_correction_has_none(name):
    assert "correction" not in schema_1(name) and recorded(name).correction is None


@pytest.mark.parametrize("name", OLD)
def test_calibration_of_schema_1_is_read_as_it_was(name):
    today, old = asdict(recorded(name).calibration), schema_1(name)["calibration"]
    assert {key: value for key, value in old.items() if key != "begins_with_bos"}.items() <= today.items()


def test_what_a_run_of_schema_1_still_lacks_is_read():
    assert asdict(recorded("pending").pending) == schema_1("pending")["pending"]


@pytest.mark.parametrize("name", ["plain", "mixture", "zero_shot"])
def test_a_finished_run_of_schema_1_lacks_nothing(name):
    assert "pending" not in schema_1(name) and recorded(name).pending is None and recorded(name).is_finished


@pytest.mark.parametrize("name", OLD)
def test_a_record_of_schema_1_is_written_in_todays(name):
    record = recorded(name)
    assert record.schema_version == SCHEMA_VERSION == record.to_json()["schema_version"]
    assert RunRecord.from_json(plain_values(record.to_json())) == record


@pytest.mark.parametrize("name", OLD)
def test_nothing_else_of_schema_1_is_lost(name):
    moved = {"schema_version", "metrics", "coverage", "correction", "calibration", "pending"}
    assert set(schema_1(name)) - moved == set(UNCHANGED)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, tiny_folder):
    """The record and folder of a run of today."""
    folder = tmp_path_factory.mktemp("fresh")
    return run(tiny_job(tiny_folder, "compensation=moments"), folder), folder


def test_a_fresh_record_survives_its_plain_values(fresh):
    record, _ = fresh
    assert RunRecord.from_json(plain_values(record.to_json())) == record


def test_a_fresh_record_survives_its_file(fresh):
    record, folder = fresh
    values = json.loads((folder / "result.json").read_text())
    assert next(iter(values)) == "schema_version" and values["schema_version"] == SCHEMA_VERSION
    assert RunRecord.from_json(values) == record


@pytest.mark.parametrize("key", ["zero_shot", "pending"])
def test_what_a_run_does_not_have_is_null_in_its_file(fresh, key):
    assert json.loads((fresh[1] / "result.json").read_text())[key] is None


def test_a_fresh_record_has_the_absolute_paths_of_its_model_and_folder(fresh, tiny_folder):
    record, folder = fresh
    assert record.paths == {"folder": str(folder.resolve()), "model.path": str(tiny_folder.resolve())}


@pytest.mark.parametrize("name", OLD)
def test_a_record_of_schema_1_has_no_paths(name):
    assert recorded(name).paths == {}


def test_a_record_of_a_measured_run_survives_its_plain_values(measured):
    record, _ = measured
    assert RunRecord.from_json(plain_values(record.to_json())) == record


def damaged(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The values with one of them replaced."""
    inner = values
    *parents, last = path.split(".")
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sparsity.achieved", "half", "sparsity.achieved: "),
        ("perplexity.bundled.windows", None, "perplexity.bundled.windows: "),
        ("config_hash", 7, "config_hash: "),
        ("memory", [], "memory: "),
        ("environment.packages", {"torch": 2}, "environment.packages.torch"),
        ("seconds", {"load": "long"}, "seconds.load: "),
        ("coverage.kinds", {"mlp.up_proj": {"prunable": "all"}}, "coverage.kinds.mlp.up_proj.prunable: "),
    ],
)
def test_a_damaged_field_is_named_in_one_sentence(path, value, message):
    values = damaged(plain_values(recorded("plain").to_json()), path, value)
    with pytest.raises(StatpruneError) as caught:
        RunRecord.from_json(values)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["sparsity", "config", "perplexity"])
def test_a_missing_field_is_named_in_one_sentence(key):
    values = plain_values(recorded("plain").to_json())
    del values[key]
    with pytest.raises(StatpruneError) as caught:
        RunRecord.from_json(values)
    assert key in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"), [("metrics", {}), ("coverage", {}), ("coverage.kinds", {"mlp": {}}), ("correction", {"a": 1})]
)
def test_damage_to_a_part_that_has_moved_is_one_sentence(path, value):
    with pytest.raises(StatpruneError, match=r"^'(perplexity|kinds|left)' is missing or damaged$"):
        RunRecord.from_json(damaged(schema_1("plain"), path, value))


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, 99])
def test_a_schema_that_this_version_does_not_read_is_one_sentence(version):
    values = recorded("plain").to_json() | {"schema_version": version}
    with pytest.raises(
        StatpruneError, match=rf"^its schema is {version}, and this statprune reads 1 to {SCHEMA_VERSION}$"
    ):
        RunRecord.from_json(values)


@pytest.mark.parametrize("values", [[], None, "text", {}, {"schema_version": "2"}, {"schema_version": None}])
def test_what_is_no_record_is_one_sentence(values):
    with pytest.raises(StatpruneError, match=r"^it has no schema_version$"):
        RunRecord.from_json(values)


@pytest.mark.parametrize(("name", "is_finished"), [("plain", True), ("zero_shot", True), ("pending", False)])
def test_a_run_is_finished_unless_something_is_pending(name, is_finished):
    assert recorded(name).is_finished is is_finished


def test_a_run_without_calibration_was_not_pruned():
    values = plain_values(recorded("plain").to_json()) | {"calibration": None}
    assert recorded("plain").is_pruned and not RunRecord.from_json(values).is_pruned

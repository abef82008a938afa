"""Runs whose model is saved compressed: what is kept, what reads it, and what comes of a run that was cut off."""

import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from statprune.config.sections import SaveModel
from statprune.errors import ConfigError, ModelError
from statprune.evaluation.inspection import inspect_checkpoint
from statprune.model.compressed import decompress_model
from statprune.model.foreign import COMPRESSED
from statprune.runs.job import model_problem
from statprune.runs.ledger import JobState
from statprune.runs.pipeline import run
from statprune.runs.saved_run import saved_run
from statprune.runs.store import MODEL, UNSAVED, read_record
from statprune.runs.summary import print_summary
from statprune.runs.verdict import Skip, verdict_on
from statprune.runs.verification import verify
from tests.helpers.command import composed, in_processes, tiny_job
from tests.helpers.full_disks import FULL, carried_out
from tests.helpers.models import tiny_tokenizer
from tests.helpers.tasks import choices, evaluated

SHAPE = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SHAPE, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
FAMILIES = {
    "tied": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "bfloat16": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)).bfloat16(),
    "conv1d": lambda: GPT2LMHeadModel(GPT2Config(**SHAPE, n_positions=64)),
    "experts": lambda: MixtralForCausalLM(MixtralConfig(**LLAMA, num_local_experts=4, num_experts_per_tok=2)),
}
QUICK = ("method=magnitude", "sparsity.ratio=0.6", "evaluation=none")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"}


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory):
    """Folders of the same run with its model saved dense, and compressed, and their records."""
    base = tmp_path_factory.mktemp("compressed_run")
    overrides = ("method=wanda", "sparsity='2_4'")
    records = {
        form: run(tiny_job(tiny_folder, *overrides, f"save_model={form}"), base / form)
        for form in ("true", "compressed")
    }
    return base, records


@pytest.mark.parametrize(
    ("family", "offload"),
    [(family, "none") for family in FAMILIES] + [("bfloat16", "cpu"), ("tied", "disk"), ("experts", "disk")],
)
def test_what_comes_back_is_what_is_saved_dense(family, offload, tmp_path):
    torch.manual_seed(0)
    FAMILIES[family]().save_pretrained(tmp_path / "own")
    tiny_tokenizer().save_pretrained(tmp_path / "own")
    for form in ("true", "compressed"):
        run(tiny_job(tmp_path / "own", *QUICK, f"offload={offload}", f"save_model={form}"), tmp_path / form)
    decompress_model(tmp_path / "compressed" / MODEL, tmp_path / "back")
    assert files(tmp_path / "back") == files(tmp_path / "true" / MODEL)
    assert not (tmp_path / "compressed" / UNSAVED).exists()


def test_nothing_but_the_compressed_model_is_kept(finished):
    base, records = finished
    folder, own = base / "compressed" / MODEL, records["compressed"].saved.compressed
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert shards == ["compressed-00001.safetensors"] and (folder / COMPRESSED).is_file()
    assert not list((base / "compressed").glob(".pruned*"))
    assert own.dense == (base / "true" / MODEL / "model.safetensors").stat().st_size
    assert own.compressed == (folder / shards[0]).stat().st_size and own.matrices == 3 * 7
    assert records["true"].saved.compressed is None
    assert sorted(records["compressed"].saved.shards) == [shards[0], COMPRESSED]


def test_the_forms_have_one_hash_and_are_recorded_as_they_were_given(finished, tiny_folder):
    base, records = finished
    assert [records[form].config["save_model"] for form in ("true", "compressed")] == [True, "compressed"]
    assert records["true"].config_hash == records["compressed"].config_hash
    assert read_record(base / "compressed") == records["compressed"]
    assert composed().resolved()["save_model"] is False
    assert composed("save_model=compressed").settings.save_model is SaveModel.compressed
    with pytest.raises(ConfigError, match="save_model=zip has the wrong type"):
        composed("save_model=zip")


@pytest.mark.parametrize("form", ["true", "compressed"])
def test_the_cards_code_opens_the_model_and_its_metadata_are_the_hubs(form, finished, capsys):
    folder = finished[0] / form / MODEL
    card = ModelCard((folder / "README.md").read_text())
    code = card.content.partition("```python\n")[2].partition("```")[0]
    exec(code.replace("this/folder", str(folder)), {})
    assert len(capsys.readouterr().out.split()) > 4
    assert card.data.library_name == ("statprune" if form == "compressed" else "transformers")
    assert card.data.pipeline_tag == "text-generation" and "sparse" in card.data.tags
    assert ("statprune decompress" in card.text) is (form == "compressed")


def test_the_summary_has_both_sizes(finished, capsys):
    base, records = finished
    print_summary(records["compressed"], base / "compressed")
    own = records["compressed"].saved.compressed
    assert f"{own.compressed:,} of {own.dense:,} bytes ({own.compressed / own.dense:.4f})" in capsys.readouterr().out


def test_a_compressed_model_is_verified(finished, tmp_path):
    findings = {own.check: own for own in verify(saved_run(finished[0] / "compressed"))}
    assert {check: own.is_right for check, own in findings.items()} == dict.fromkeys(findings, True)
    wanted = {"record", "checksums", "files", "card", "decompress", "zeros", "untouched", "groups", "losses"}
    assert findings.keys() == wanted and "at most 0 nats" in findings["losses"].sentence
    shutil.copytree(finished[0] / "compressed", tmp_path / "run")
    file = tmp_path / "run" / MODEL / "compressed-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    findings = {own.check: own for own in verify(saved_run(tmp_path / "run"))}
    assert findings["checksums"].is_right is False and findings["model"].is_right is False


def test_a_dense_model_in_the_place_of_a_compressed_one_is_found(finished, tmp_path):
    shutil.copytree(finished[0] / "compressed", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / MODEL)
    decompress_model(finished[0] / "compressed" / MODEL, tmp_path / "run" / MODEL)
    sentence = next(own.sentence for own in verify(saved_run(tmp_path / "run")) if own.check == "checksums")
    assert "compressed.json is missing" in sentence and "the model was saved in another form" in sentence


def test_inspecting_counts_the_same_zeros(finished):
    found = [inspect_checkpoint(str(finished[0] / form / MODEL)) for form in ("true", "compressed")]
    assert {own.name: own.facts for own in found[0].tensors} == {own.name: own.facts for own in found[1].tensors}
    assert found[1].is_card_true and found[1].bytes < found[0].bytes


def test_a_run_that_reads_it_is_told_what_to_do(finished):
    folder = finished[0] / "compressed" / MODEL
    with pytest.raises(ConfigError, match="holds a compressed model; make it dense with statprune decompress"):
        tiny_job(folder, "method=dense")


def test_a_finished_run_is_skipped_and_told_of_another_form(finished, tiny_folder, tmp_path, caplog):
    caplog.set_level("INFO")
    shutil.copytree(finished[0] / "compressed", tmp_path / "run")
    overrides = ("method=wanda", "sparsity='2_4'")
    for form, told in (("compressed", ""), ("true", "its model is saved compressed, and statprune decompress")):
        caplog.clear()
        job = tiny_job(tiny_folder, *overrides, f"save_model={form}")
        assert isinstance(verdict_on(job, tmp_path / "run"), Skip)
        assert carried_out(tiny_folder, tmp_path / "run", *overrides, f"save_model={form}").state is JobState.SKIPPED
        assert told in caplog.text and ("its model is saved" in caplog.text) is bool(told)


@pytest.mark.parametrize("damaged", ["compressed-00001.safetensors", COMPRESSED])
def test_a_run_whose_compressed_model_was_changed_is_run_again(finished, tiny_folder, tmp_path, damaged):
    shutil.copytree(finished[0] / "compressed", tmp_path / "run")
    file = tmp_path / "run" / MODEL / damaged
    file.write_bytes(file.read_bytes() + b" ")
    job = tiny_job(tiny_folder, "method=wanda", "sparsity='2_4'", "save_model=compressed")
    assert f"model/{damaged} is not what the run wrote" in verdict_on(job, tmp_path / "run").because


def test_a_model_that_a_user_put_there_is_not_replaced(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / UNSAVED)
    assert "would be lost" in model_problem(tiny_job(tiny_folder, "save_model=compressed"), tmp_path)
    assert model_problem(tiny_job(tiny_folder), tmp_path) is None


def test_a_disk_that_is_full_while_compressing_leaves_the_dense_model(tiny_folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("statprune.model.compressed.write_tensors", lambda *_: (_ for _ in ()).throw(FULL))
        failed = carried_out(tiny_folder, tmp_path, *QUICK, "save_model=compressed")
    assert failed.state is JobState.FAILED and "could not be compressed" in failed.reasons[0]
    assert "statprune compress" in failed.reasons[0]
    assert (tmp_path / MODEL / "model.safetensors").is_file() and not (tmp_path / UNSAVED).exists()
    assert read_record(tmp_path).saved.compressed is None
    again = carried_out(tiny_folder, tmp_path, *QUICK, "save_model=compressed")
    assert again.state is JobState.SKIPPED
    assert next(own for own in verify(saved_run(tmp_path)) if own.check == "checksums").is_right


def test_the_room_for_both_copies_is_asked_for_before_pruning(tiny_folder, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    size = sum(path.stat().st_size for path in tiny_folder.glob("*.safetensors"))
    free = shutil.disk_usage(folder)._replace(free=size + size // 2)
    monkeypatch.setattr("statprune.runs.context.shutil.disk_usage", lambda _: free)
    with pytest.raises(ModelError, match="are free there; make room"):
        run(tiny_job(tiny_folder, *QUICK, "save_model=compressed"), folder)
    assert not (folder / "blocks.jsonl").exists()


@pytest.mark.parametrize("first", ["compressed", "true", "false"])
def test_a_run_that_was_cut_off_is_completed_compressed(first, tiny_folder, tmp_path, monkeypatch):
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    choices("alone", tasks, 5)
    overrides = ("method=magnitude",)
    with monkeypatch.context() as patch:
        patch.setattr("statprune.runs.measure._pruned_answers", lambda *_: (_ for _ in ()).throw(ModelError("cut off")))
        with pytest.raises(ModelError, match="cut off"):
            run(evaluated(tiny_folder, tasks, *overrides, f"save_model={first}"), tmp_path / "run")
    pending = read_record(tmp_path / "run")
    assert pending.pending.model == (MODEL if first == "true" else UNSAVED)
    config = evaluated(tiny_folder, tasks, *overrides, "save_model=compressed")
    record = run(config, tmp_path / "run", pending=pending)
    assert record.is_finished and record.saved.compressed.matrices == 21
    assert (tmp_path / "run" / MODEL / COMPRESSED).is_file() and not (tmp_path / "run" / UNSAVED).exists()
    assert next(own for own in verify(saved_run(tmp_path / "run")) if own.check == "decompress").is_right


def test_half_a_compressed_model_of_a_killed_run_is_replaced(tiny_folder, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    job = (*QUICK, "save_model=compressed")
    with monkeypatch.context() as patch:
        patch.setattr("statprune.model.compressed.check_compressed", killed)
        with pytest.raises(KeyboardInterrupt):
            carried_out(tiny_folder, tmp_path, *job)
    assert (tmp_path / MODEL / COMPRESSED).is_file() and read_record(tmp_path) is None
    assert carried_out(tiny_folder, tmp_path, *job).state is JobState.FINISHED
    assert read_record(tmp_path).saved.compressed.matrices == 21 and not (tmp_path / UNSAVED).exists()


@pytest.mark.long
def test_two_processes_save_one_compressed_model(tiny_folder, tmp_path):
    overrides = ("calibration.samples=4", "calibration.seq_len=32", "evaluation=none", "method=magnitude")
    overrides += ("tracking=disabled", "cache=null", "device=cpu", f"model.path={tiny_folder}")
    done = in_processes(2, *overrides, "save_model=compressed", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run(tiny_job(tiny_folder, "method=magnitude", "evaluation=none", "save_model=true"), tmp_path / "dense")
    decompress_model(tmp_path / "run" / MODEL, tmp_path / "back")
    assert files(tmp_path / "back") == files(tmp_path / "dense" / MODEL)

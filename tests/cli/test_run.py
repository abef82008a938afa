"""The command as a person uses it: help, bad input, other models, what is printed and what is written."""

import dataclasses
import json
import math
import re
import subprocess
from enum import Enum
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from transformers import BertConfig, BertLMHeadModel, T5Config, T5ForConditionalGeneration

from statprune.cli import folder_problems, run_name
from statprune.config import schema as config
from statprune.config.compose import override_problems
from statprune.core.compensation import Energy
from statprune.core.methods import method_names, options_class
from statprune.core.moments import Moments
from statprune.errors import ConfigError, DataError, ModelError
from statprune.runs import store as results
from statprune.runs.job import Outcome, carry_out, finished_record, print_line, to_json
from statprune.runs.pipeline import run
from statprune.runs.store import finish_record
from statprune.runs.summary import print_summary
from statprune.runs.workbench import Workbench
from statprune.system.files import remove_leftovers, write_json
from tests.helpers.command import composed, statprune, tiny
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.wandb_files import wandb_run

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize(
    "overrides,messages",
    [
        (["sparsity=2_4", "sparsity.ratio=0.5"], ["together with keep and of"]),
        (["sparsity=2_4", "sparsity.group=row"], ["sparsity.group is for unstructured"]),
        (["sparsity.keep=4", "sparsity.of=4"], ["0 < keep < of"]),
        (["sparsity.keep=2", "sparsity.of=5", "method=sparsegpt"], ["not divisible by M=5"]),
        (["method.alfa=1", "sparsity.ratio=-0.1"], ["did you mean method.alpha?", "outside [0, 1)"]),
        (["method=wnada", "modle=x"], ["choose one of cvr, dense, magnitude", "modle is not a key"]),
        (
            ["method=dense", "compensation=energy", "device=cuda:7"],
            ["can't follow method=dense", "cuda:7 is not there"],
        ),
        (
            ["model.path=./no", "calibration=text", "evaluation.datasets=[text]", "evaluation.path=no.txt"],
            ["./no does not exist", "calibration.path is not set", "evaluation.path=no.txt is no file"],
        ),
        (["evaluation.datasets=[pile]", "seed=many"], ["'pile', which is unknown", "seed=many has the wrong type"]),
    ],
)
def test_all_bad_input_is_reported_in_sentences_before_anything_starts(overrides, messages, tmp_path):
    done = statprune(*overrides, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert all(line.startswith("statprune: ") for line in done.stderr.splitlines())
    for message in messages:
        assert message in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "arguments,multirun,message",
    [
        (["method=null"], False, "method=null is not a choice; choose one of cvr, dense"),
        (
            ["~compensation"],
            False,
            "leave the run without it; choose one of columns, energy, energy_moments, moments, none, rows, rows_first",
        ),
        (["evaluation.seq_len=${nope}"], False, "nope"),
        (["seed=99999999999999999999"], False, "is outside [0, 2**63)"),
        (["=3"], False, "=3 has no name before ="),
        (["method=wanda,ria"], False, "method=wanda,ria lists several values; add -m"),
        (["method=wanda,foo", "sparsity.ratio=0.5,0.6"], True, "method=foo is not a choice"),
        (["method=wanda,ria", "sparsity.ratio=0.5,2"], True, "sparsity.ratio=2.0 is outside [0, 1)"),
        (["compensation.epsilon=nan"], False, "compensation.epsilon=nan is not a finite number"),
        (["compensation.epsilon=-1"], False, "compensation.epsilon=-1.0 is negative"),
        (["method.activation_power=-3"], False, "method.activation_power=-3.0 is negative"),
        (["method=sparsegpt", "method.damping=inf"], False, "method.damping=inf is not a finite number"),
        (["evaluation.datasets=[bundled,bundled]"], False, "names a dataset twice"),
    ],
)
def test_problems_of_overrides_are_sentences(arguments, multirun, message):
    problems = override_problems(arguments, multirun)
    assert len(problems) == 1 and message in problems[0] and "\n" not in problems[0]


def test_sweeps_and_printing_check_their_overrides_and_text_files_too(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    text = ["calibration=text", "calibration.path=empty.txt", "evaluation.datasets=[text]", "evaluation.path=empty.txt"]
    for flags, lines in ((["-m", "method=wanda,ria,foo"], 3), (["--cfg", "job", "method=foo"], 3)):
        done = statprune(*flags, *text, cwd=tmp_path)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == lines, done.stderr
        assert "method=foo is not a choice" in done.stderr
        assert "calibration.path=empty.txt is empty" in done.stderr and "evaluation.path=empty.txt is" in done.stderr


def test_a_folder_that_cant_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("/proc/nope", str(tmp_path / "file"), str(tmp_path / "file" / "below")):
        (problem,) = folder_problems([f"hydra.run.dir={folder}"])
        assert f"the folder {folder} can't be written" in problem
    assert folder_problems([f"hydra.run.dir={tmp_path / 'new'}"]) == []


def test_run_names_tell_the_pattern_and_have_a_hash_of_what_they_do_not_tell(tiny_folder):
    def name(*overrides):
        with initialize_config_module("statprune.conf", version_base="1.3"):
            return run_name(_root_=compose("config", [*overrides], return_hydra_config=True))

    start = "SmolLM2-135M-Instruct.Q4_1_bundled"
    assert name() == f"{start}_0.5_cvr_energy_s0"
    assert name("sparsity.ratio=0") == f"{start}_0_cvr_energy_s0"
    assert name("sparsity='2_4'", "method=wanda") == f"{start}_2_4_wanda_none_s0"
    assert name("sparsity.keep=2", "sparsity.of=4", "method=wanda") == f"{start}_2_4_wanda_none_s0"
    assert name("method=dense") == f"{start}_dense_dense_none_s0"
    assert name("sparsity.allocation=owl", "compensation=rows") == f"{start}_owl0.5_cvr_energy-rows_s0"
    assert name("compensation=rows_first") == f"{start}_0.5_cvr_energy-rows-first_s0"
    assert name("compensation=moments", "compensation.scale=false") == f"{start}_0.5_cvr_moments-mean_s0"
    assert name("compensation=energy_moments") == f"{start}_0.5_cvr_moments-energy-first_s0"
    assert name("compensation.columns=false", "compensation.rows=false") == f"{start}_0.5_cvr_energy-off_s0"
    assert name("experiment=smoke", "method.alpha=0.5", "verbose=true") == f"{start}_0.5_cvr_energy_s0"
    apart = [name("method=dense", pattern) for pattern in ("sparsity='2_4'", "sparsity.ratio=0.6", "sparsity='4_8'")]
    apart += [name("sparsity.layer_ratios=[0.5]", f"sparsity.ratio={ratio}") for ratio in (0.3, 0.4)]
    assert len(set(apart)) == 5  # what the name has no words for
    given = [name("sparsity.layer_ratios=[0.5]", "seed=3"), name("sparsity.layer_ratios=[0.25]", "seed=3")]
    assert all(re.fullmatch(rf"{start}_given_cvr_energy_s3_[0-9a-f]{{8}}", text) for text in given)
    measured = {name(f"evaluation={choice}") for choice in ("none", "zero_shot", "full")}
    assert len(measured) == 3 and all(re.fullmatch(rf"{start}_0\.5_cvr_energy_s0_[0-9a-f]{{8}}", n) for n in measured)
    others = [name("method.alpha=1"), name("method.alpha=2"), name(f"model.path={tiny_folder}"), *given]
    assert len(set(others)) == 5 and name("method.alpha=1.0") == others[0]
    assert re.fullmatch(r"model_bundled_0\.5_cvr_energy_s0_[0-9a-f]{8}", others[2])


def test_numbers_that_are_not_finite_are_null_and_warned_about(tmp_path, caplog):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.zero_()
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    run(tiny(tmp_path / "model"), tmp_path)
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "blocks.jsonl").open()]
    zero = next(line for line in lines if line["block"] == 1 and line["layer"] == "mlp.up_proj")
    assert zero["relative_output_error"] is None and zero["column_energy_ratio"] is None and zero["sparsity"] == 1
    write_json(tmp_path / "x.json", {"a": [math.nan, 1.0, (math.inf,)]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.0, [None]]}


def test_a_run_whose_perplexity_is_not_finite_is_told_of_like_others(tmp_path, tiny_folder, capsys):
    config = tiny(tiny_folder, "save_model=true")
    record = run(config, tmp_path)
    record["metrics"]["perplexity"]["bundled"]["pruned"] = math.inf
    finish_record(tmp_path, record, is_saved=True)
    again = finished_record(config, tmp_path)
    assert again["metrics"]["perplexity"]["bundled"]["pruned"] is None
    outcome = Outcome(tmp_path, "skipped", record=again)
    print_summary(again, tmp_path)
    print_line(outcome)
    told = capsys.readouterr().out
    assert told.count("not finite") == 2 and "not finite |" in (tmp_path / "model" / "README.md").read_text()
    assert outcome.metric == math.inf == json.loads(to_json(outcome))["metric"]


def test_what_killed_runs_left_goes_and_nothing_else(tmp_path):
    left = [".result.json.12", ".windows.parquet.7", "tmpab.hidden", ".converted-x"]
    kept = ["result.json", ".other.json", "mine.hidden", "windows.parquet"]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    (tmp_path / ".converted-x").unlink()
    (tmp_path / ".converted-x" / "inner").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)


def test_a_model_beside_the_record_is_replaced_only_if_a_run_wrote_it(tmp_path, tiny_folder):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").touch()
    bench = Workbench(keeps=False)
    job = OmegaConf.create(tiny(tiny_folder, "save_model=true").resolved() | {"save_model": True})
    outcome = carry_out(job, tmp_path, bench, others_follow=False)
    assert outcome.state == "failed" and "model is not a run's own" in outcome.reasons[0]
    job.save_model = False
    assert carry_out(job, tmp_path, bench, others_follow=False).state == "finished"
    assert (tmp_path / "model" / "mine.txt").exists()
    job.rerun = True
    assert carry_out(job, tmp_path, bench, others_follow=False).state == "finished"
    assert (tmp_path / "model" / "mine.txt").exists()
    (tmp_path / "model").rename(tmp_path / "mine")
    job.save_model = True
    assert carry_out(job, tmp_path, bench, others_follow=False).state == "finished"
    (tmp_path / "model" / "README.md").unlink()
    job.save_model = False  # what the run before wrote goes
    assert carry_out(job, tmp_path, bench, others_follow=False).state == "finished"
    assert not (tmp_path / "model").exists()


def test_the_commit_is_this_checkouts_or_none(tmp_path, monkeypatch):
    commit = results._git_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}", commit)
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    installed = tmp_path / "venv" / "site-packages" / "statprune"
    installed.mkdir(parents=True)
    monkeypatch.setattr(results, "__file__", str(installed / "results.py"))
    assert results._git_commit() is None  # of a wheel inside another project


def test_a_hub_name_without_network_fails_in_one_sentence(tmp_path):
    done = statprune("model=opt_125m", "tracking=disabled", cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "Retry" not in done.stderr
    assert "model.path=facebook/opt-125m can't be opened" in done.stderr
    assert "no network, and not in the local cache" in " ".join(done.stderr.split())


def test_models_that_are_no_decoder_are_refused_before_any_work(tmp_path):
    sizes = {"vocab_size": 97, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
    bert = BertLMHeadModel(BertConfig(hidden_size=32, **sizes))
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=97, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2))
    for name, model, reason in (("bert", bert, "causal|straight"), ("t5", t5, "no causal language model of this type")):
        model.save_pretrained(tmp_path / name)
        tiny_tokenizer().save_pretrained(tmp_path / name)
        with pytest.raises(ModelError, match=reason):
            run(tiny(tmp_path / name), tmp_path / "run")
        assert not (tmp_path / "run" / "result.json").exists()


def test_broken_models_are_refused(tmp_path, tiny_folder):
    (tmp_path / "bad.gguf").write_bytes(b"not a gguf file")
    (tmp_path / "empty").mkdir()
    for name in ("bad.gguf", "empty"):
        with pytest.raises(ModelError, match=f"model.path=.*{name} can't be opened"):
            run(tiny(tmp_path / name), tmp_path / "run")
    own_code = tmp_path / "own_code"
    own_code.mkdir()
    tiny_tokenizer().save_pretrained(own_code)
    (own_code / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}})
    )
    with pytest.raises(ModelError, match=r"set model\.trust_remote_code=true"):
        run(tiny(own_code), tmp_path / "run")


def test_what_does_not_fit_the_model_is_found_before_the_first_forward(tmp_path, tiny_folder):
    with pytest.raises(ModelError, match=r"calibration\.seq_len=65 is longer than the model's 64 positions"):
        run(tiny(tiny_folder, "calibration.seq_len=65"), tmp_path)
    with pytest.raises(ModelError, match=r"self_attn\.q_proj: its 32 inputs are not divisible by M=5"):
        run(tiny(tiny_folder, "sparsity.keep=2", "sparsity.of=5"), tmp_path)
    short = tmp_path / "short.txt"
    short.write_text("a few words")
    with pytest.raises(DataError, match="evaluation text has"):
        run(tiny(tiny_folder, "evaluation.datasets=[text]", f"evaluation.path={short}"), tmp_path)
    assert not (tmp_path / "windows.parquet").exists()


def test_another_text_and_model_with_per_block_lines(tmp_path, tiny_folder):
    text = tmp_path / "words.txt"
    text.write_text("another text with other words. " * 100)
    done = statprune(
        f"model.path={tiny_folder}",
        "calibration=text",
        f"calibration.path={text}",
        "calibration.samples=2",
        "calibration.seq_len=32",
        "evaluation.datasets=[text,bundled]",
        f"evaluation.path={text}",
        "evaluation.max_windows=2",
        "method=wanda",
        "sparsity=4_8",
        "model.dtype=bfloat16",
        "save_model=true",
        "verbose=true",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"block (\d) of 3: mean relative output error 0\.\d+", done.stderr) == ["1", "2", "3"]
    assert "\r" not in done.stdout + done.stderr and "\x1b" not in done.stdout + done.stderr
    (folder,) = (tmp_path / "outputs" / "default").iterdir()
    record = json.loads((folder / "result.json").read_text())
    assert set(record["metrics"]["perplexity"]) == {"text", "bundled"}
    assert record["sparsity"] == {"target": 0.5, "achieved": 0.5, "blocks": [0.5, 0.5, 0.5]}
    assert record["config"]["model"]["dtype"] == "bfloat16" and record["config"]["method"] == {"name": "wanda"}
    phases = ("load", "calibrate", "observe", "solve", "propagate", "evaluate", "save")
    assert all(record["seconds"][phase] > 0 for phase in phases)
    read_back = wandb_run(next((folder / "wandb").glob("offline-run-*/*.wandb")))
    blocks = [row for row in read_back["history"] if "block" in row]
    assert read_back["config"]["method"] == {"name": "wanda"}
    assert [row["block"] for row in blocks] == [0, 1, 2]
    assert all(row["block/sparsity"] == 0.5 and row["block/seconds"] > 0 for row in blocks)
    assert read_back["summary"]["perplexity/text"] == record["metrics"]["perplexity"]["text"]["pruned"]
    card = (folder / "model" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
    pruned, dense = (f"{record['metrics']['perplexity']['text'][key]:.4f}" for key in ("pruned", "dense"))
    for part in ("| wanda |", "4:8; achieved 0.50000", "2 windows of 32 tokens, seed 0", f"| {dense} | {pruned} |"):
        assert part in card, part


def test_dense_measures_without_pruning(tmp_path, tiny_folder):
    record = run(tiny(tiny_folder, "method=dense", "sparsity.allocation=owl", "save_model=true"), tmp_path)
    print_summary(record, tmp_path)
    assert "measured, not pruned" in (tmp_path / "model" / "README.md").read_text()
    assert record["sparsity"]["target"] == 0
    values = record["metrics"]["perplexity"]["bundled"]
    assert values["dense"] == values["pruned"] and record["sparsity"]["achieved"] == 0
    assert record["coverage"]["pruned"] == 0


def test_losses_are_kept_when_a_later_step_fails(tmp_path, tiny_folder, monkeypatch):
    import pandas as pd

    monkeypatch.setattr("statprune.runs.pipeline.prune", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tiny(tiny_folder), tmp_path)
    losses = pd.read_parquet(tmp_path / "windows.parquet")
    assert losses.dense_loss.notna().all() and losses.pruned_loss.isna().all() and (losses.tokens == 31).all()


def test_a_model_that_cant_be_saved_is_still_measured_and_recorded(tmp_path, tiny_folder, monkeypatch):
    def full(model, tokenizer, folder):
        folder.mkdir()
        (folder / "model.safetensors").touch()
        raise OSError("no space left on device")

    monkeypatch.setattr("statprune.runs.pipeline.save_model", full)
    with pytest.raises(ModelError, match=r"could not be saved .*no space left on device.* are in result\.json"):
        run(tiny(tiny_folder, "save_model=true"), tmp_path)
    assert not (tmp_path / "model").exists()
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["sparsity"]["achieved"] == 0.5 and record["metrics"]["perplexity"]["bundled"]["pruned"] > 1


def test_allocated_ratios_are_in_the_record(tmp_path, tiny_folder):
    given = run(tiny(tiny_folder, "sparsity.layer_ratios=[0.25,0.5,0.625]"), tmp_path)
    assert given["sparsity"]["blocks"] == pytest.approx([0.25, 0.5, 0.625], abs=1e-3)
    assert given["sparsity"]["target"] == pytest.approx((0.25 + 0.5 + 0.625) / 3)
    owl = run(tiny(tiny_folder, "sparsity.allocation=owl", "sparsity.ratio=0.6"), tmp_path)
    assert owl["sparsity"]["target"] == pytest.approx(0.6, abs=1e-4) == owl["sparsity"]["achieved"]
    low, high = min(owl["sparsity"]["blocks"]), max(owl["sparsity"]["blocks"])
    assert high - low == pytest.approx(0.16, abs=1e-3) and owl["seconds"]["allocate"] > 0
    assert owl["config"]["sparsity"]["max_deviation"] == 0.08 and owl["config_hash"] != given["config_hash"]


def test_weights_that_are_not_finite_name_their_block(tmp_path):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match="block 1 of LlamaForCausalLM gives values that are not finite"):
        run(tiny(tmp_path / "model"), tmp_path)


def test_presets_compose_and_their_values_are_the_code_defaults():
    for preset in sorted((CONF / "model").glob("*.yaml")):
        assert composed(f"model={preset.stem}").model.path == yaml.safe_load(preset.read_text())["path"]
    for name in method_names():
        job = composed(f"method={name}")
        assert job.method_options == options_class(name)(), name
        assert (job.compensation == Energy()) == (name == "cvr")
    assert composed("compensation=moments").compensation == Moments()
    best = composed("experiment=best_first_order")
    assert best.compensation == Moments(groups=64) and best.method_options == options_class("cvr")(
        alpha=0, activation_power=0.5
    )
    main = composed("experiment=main").resolved()
    assert main["model"]["path"] == "meta-llama/Llama-2-7b-hf" and main["evaluation"]["seq_len"] == 4096
    assert (main["calibration"]["samples"], main["calibration"]["seq_len"]) == (128, 2048)
    assert composed("experiment=main", "method=wanda").compensation is None  # as without the preset
    assert main["compensation"]["name"] == "energy" and main["evaluation"]["datasets"] == ["wikitext2"]


def test_help_names_every_group_choice_and_key(tmp_path):
    text = statprune("--help", cwd=tmp_path).stdout
    words = set(re.findall(r"[\w.]+", text))
    for folder in filter(Path.is_dir, CONF.iterdir()):
        assert folder.name in words
        assert {file.stem for file in folder.rglob("*.yaml")} <= words, folder.name
    classes = [getattr(config, f"{name}Config") for name in ("Model", "Calibration", "Sparsity", "Evaluation")]
    classes += [config.TrackingConfig, *config.COMPENSATIONS.values(), *map(options_class, method_names())]
    for cls in classes:
        keys = {f".{field.name}" for field in dataclasses.fields(cls)} - {".name"}
        assert keys <= {f".{word.lstrip('.')}" for word in words if word.startswith(".")}, cls
    for field in dataclasses.fields(config.Settings):
        assert field.name in words
        if isinstance(field.default, Enum):
            assert {member.value for member in type(field.default)} <= words


def test_composed_config_is_printed(tmp_path):
    printed = yaml.safe_load(statprune("method=wanda", "--cfg", "job", cwd=tmp_path).stdout)
    assert printed["method"] == {"name": "wanda"} and printed["compensation"] == {"name": "none"}
    assert printed["calibration"]["samples"] == 24


def test_unresolvable_types_are_problems_not_tracebacks():
    with pytest.raises(ConfigError, match=r"model\.dtype=float64 has the wrong type"):
        composed("model.dtype=float64")

"""Command lines with mistakes of every kind: one sentence, and nothing is made."""

import pytest

from statprune.errors import one_line
from tests.helpers.commands import problems_of

LONG = "x" * 300


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["compensation=null"], "compensation=null is not a choice"),
        (["experiment=[-1]"], "is not a choice"),
        (["model=1"], "model=1 is not a choice"),
        (["hydra/sweeper=[null]"], "hydra/sweeper=[None] is not a choice"),
        (["hydra/launcher=3"], "hydra/launcher=3 is not a choice"),
        ([f"hydra/launcher={LONG}"], "is not a choice; choose one of basic"),
        ([f"model={LONG}"], "is not a choice; choose one of"),
        ([f"experiment={LONG}"], "is not a choice; choose one of"),
        ([f"+method={LONG}"], "adds what is there already"),
        (["--config-name", LONG], "is in none of the folders"),
        ([f"name={LONG}"], "is too long for a file system"),
        (["+method=wanda"], "+method=wanda adds what is there already; leave the + out, and give method=CHOICE"),
        (["~model=2_4"], "~model would leave the run without it"),
        (["~seed"], "~seed would leave the run without seed; give seed=VALUE"),
        (["+seed=1"], "+seed=1 adds what is there already; leave the + out"),
        (["++x=1"], "x is not a key"),
        (["hydra.run.dir=${nope}"], "hydra.run.dir: Interpolation key 'nope' not found"),
        (["hydra.run.dir="], "hydra.run.dir is empty"),
        ([f"hydra.run.dir={LONG}"], "is too long for a file system"),
        (["-m", "hydra.sweep.dir=", "seed=0,1"], "hydra.sweep.dir is empty"),
        (["-m", "hydra.sweep.subdir=${nope}", "seed=0,1"], "hydra.sweep.subdir: Interpolation key"),
        (["hydra.job.nope=1"], "Key 'nope' not in 'JobConf'"),
        (["hydra.job.env_copy=[NOPE]"], "which the environment does not have"),
        (["hydra/job_logging=null"], "Hydra can't compose its own part"),
        (["hydra.mode=MULTIRUN"], "add -m for a sweep"),
        (["seed=${seed}"], "seed: Recursive interpolation detected"),
        (["name=${nope}"], "name: Interpolation key 'nope' not found"),
        (["seed=1e400"], "seed=inf is not a finite number"),
        ([f"seed={'9' * 5000}"], "a number in it can't be read"),
        ([f"seed={'[' * 500 + ']' * 500}"], "its brackets are too deep"),
        (["model.exclude=[[a]]"], "it is a list of texts"),
        (["evaluation.datasets=[[a]]"], "it is a list of texts"),
        (["evaluation.tasks=[{a:b}]"], "it is a list of texts"),
        ([f"evaluation.tasks=[./{LONG}]"], "can't be looked at (File name too long)"),
        (["calibration=text", f"calibration.path={'x' * 5000}"], "can't be looked at (File name too long)"),
        (["evaluation.name=3"], "evaluation.name=3 is unknown"),
        (["name=???"], "name has no value (???)"),
        (["cache="], "cache is empty"),
        (["-m", "seed=glob(*)"], "seed=glob(*) lists no value"),
        (["-m", "seed=range(0)"], "seed=range(0) lists no value"),
        (["-m", "seed=range(0,3,step=0)"], "can't be listed"),
        (["-m", "seed=range(0,1000000000)"], "the command stands for 1000000000 runs, and 10000 are the most"),
        (["-m", "seed=range(0,1e300)", "name=a,b"], "more than 10**12 runs"),
        (["-m", "seed=int(a)"], "seed=int(a) can't be evaluated"),
        (["-m", "hydra/launcher=basic,joblib"], "holds for a whole sweep; give one value"),
        (["-m", "hydra.sweeper.max_batch_size=0", "seed=0,1"], "is no number of jobs"),
        (["--config-name", "nope"], "--config-name nope is in none of the folders"),
        (["--config-name"], "expected one argument"),
        (["--nope"], "--nope is no flag"),
        (["--cfg", "nope"], "invalid choice: 'nope'"),
        ([""], "an empty override can't be read"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, here):
    problems = problems_of(*arguments)
    assert len(problems) == 1 and sentence in problems[0]
    assert one_line(problems[0]).isprintable() and len(one_line(problems[0])) < 2001
    assert not any(here.iterdir())


@pytest.mark.parametrize("arguments", [["-m", "method=glob(w*)"], ["-m", "method=glob(*,exclude=dense)"], ["++seed=3"]])
def test_what_hydra_can_do_is_accepted(arguments):
    assert problems_of(*arguments) == []


@pytest.mark.parametrize(
    ("arguments", "jobs"), [(["-m", "seed=0,1"], 2), (["experiment=ablation_compensation"], 2), (["-m", "seed=0"], 1)]
)
def test_a_wandb_agent_starts_one_run_a_command(arguments, jobs, monkeypatch):
    assert problems_of(*arguments) == []
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    problems = problems_of(*arguments)
    assert problems == [] if jobs == 1 else "gives this command the id of one run" in problems[0]


FILES = {
    b"# @package _global_\nmethod: [a\n": "x.yaml can't be read (line 3: expected",
    b"# @package _global_\nmethod:\n\tname: a\n": "x.yaml can't be read (line 3: found character",
    b"seed: 3\n": "has to be # @package _global_",
    b"# @package _global_\ndefaults:\n  - override /method: nope\n": "Could not find 'method/nope'; mend that file",
    b"# @package _global_\ndefaults:\n  - nope\n": "Could not load 'experiment/nope'; mend that file",
    b"# @package _global_\ndefaults:\n  - x\n": "the defaults of experiment=x lead to themselves",
    b"# @package _global_\ndefaults: ria\n": "defaults must be a list (got str)",
    b"- a\n- b\n": "x.yaml holds no keys with values",
    b"3\n": "x.yaml can't be read (",
    "# é\n".encode("latin-1"): "x.yaml can't be read (it is not UTF-8 text)",
    b"# @package _global_\nmodel: abc\n": "model is 'abc' and holds no keys",
    b"# @package _global_\nmodel: [abc]\n": "Cannot merge DictConfig with ListConfig; mend that file",
    b"# @package _global_\nsed: 3\n": "sed is not a key; did you mean seed?",
    b"# @package _global_\n3: 4\n": "3 is not a key",
    b"# @package _global_\nseed: ${nope}\n": "seed: Interpolation key 'nope' not found",
    b"# @package _global_\nhydra:\n  run:\n    dir: ${nope}\n": "hydra.run.dir: Interpolation key 'nope' not found",
    b"# @package _global_\nhydra: 3\n": "sets hydra to 3",
    b"# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: 3\n": "Cannot assign int to Dict",
    b"# @package _global_\nplugins: 3\n": "plugins=3 has the wrong type",
}


@pytest.mark.parametrize("content", FILES)
def test_a_mistake_in_a_configuration_file_is_one_sentence(content, here):
    (here / "mine" / "experiment").mkdir(parents=True)
    (here / "mine" / "experiment" / "x.yaml").write_bytes(content)
    problems = problems_of("--config-dir", "mine", "experiment=x")
    assert len(problems) == 1 and FILES[content] in problems[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["name=${nope}"], "name: Interpolation key 'nope' not found;"),
        (["hydra.job.nope=1"], "Could not override 'hydra.job.nope': Key 'nope' not in 'JobConf'"),
    ],
)
def test_a_key_is_named_where_omegaconf_keeps_the_causes_of_its_errors(arguments, sentence, monkeypatch):
    told = problems_of(*arguments)
    monkeypatch.setenv("OC_CAUSE", "1")  # as in a debugger
    assert problems_of(*arguments) == told and sentence in told[0]

"""Hypothesis strategies of command lines: real groups, choices and keys of ours with values of every kind."""

from functools import cache

from hypothesis import strategies as st

from statprune.config.compose import choice_names, compose, group_names, plain_values
from statprune.config.place import own_place, use_place

WRONG = ["null", "true", "0", "-1", "0.5", "1e400", "nan", "inf", "", "[]", "{}", "[null]", "[[a]]", "{a:b}", "[{a:1}]"]
HUGE = ["9" * 40, "9" * 5000, "-" + "9" * 30, "1e-400", "x" * 300, "a/" * 3000, "[" * 60 + "]" * 60, "[" * 2000]
INTERPOLATED = [
    "${seed}",
    "${nope}",
    "${model}",
    "${oc.env:NOPE}",
    "${oc.env:NOPE,1}",
    "${nope:1}",
    "${",
    "${}",
    "$",
    "${.}",
]
INTERPOLATED += [
    "${name}",
    "${oc.env:HF_TOKEN}",
    "${hydra:job.num}",
    "${hydra.job.name}",
    "${run_name:}",
    "${oc.decode:'['}",
]
SIGNS = [
    "'",
    '"',
    "a=b",
    "=",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "%",
    "#",
    "\\",
    "\\'",
    "'a",
    'a"',
    "a,b",
    ",",
    "a b",
    " ",
    "é",
]
SIGNS += [
    "../../x",
    "/proc/nope",
    "~/x",
    "~",
    ".",
    "..",
    "a\nb",
    "\0",
    "'\0'",
    "日本",
    "\udcff",
    "*",
    ":",
    "a:b",
    "@",
    "!",
]
SWEEPS = [
    "1,2",
    "choice(1,2)",
    "choice(a)",
    "range(3)",
    "range(0)",
    "range(0,1e12)",
    "range(0,1,step=0)",
    "range(1,0.5)",
]
SWEEPS += [
    "glob(*)",
    "glob([a*,c*],exclude=x)",
    "interval(0,1)",
    "sort(3,1)",
    "shuffle(1,2)",
    "tag(a,choice(1,2))",
    "int(a)",
]
SWEEPS += [
    "float(1)",
    "str([1])",
    "bool(x)",
    "choice()",
    "nope(1)",
    "sort(1,a)",
    "range(a)",
    "glob(",
    "1,",
    "a,[b,c],{d:e}",
]
PLACES = ["hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.name", "hydra.mode", "hydra.job_logging"]
OTHERS = ["hydra/launcher", "hydra/sweeper", "hydra/job_logging", "hydra/nope", "hydra.verbose", "hydra.job.env_copy"]
OTHERS += [
    "hydra.sweeper.params",
    "hydra.sweeper.max_batch_size",
    "hydra.sweeper.file",
    "hydra.searchpath",
    "hydra.nope",
]
OTHERS += ["+hydra.job.env_set.HF_TOKEN", "hydra.launcher.n_jobs", "hydra", "hydra.callbacks", "hydra.output_subdir"]
STRANGE = [
    "",
    "x",
    "x.y",
    "model.path.x",
    "method.",
    ".seed",
    "a..b",
    "é",
    "model@x",
    "method@",
    "x:y",
    "1",
    "a b",
    "sed",
    "modle.path",
]
FLAGS = [["-m"], ["--multirun"], ["--cfg", "job"], ["--cfg", "nope"], ["--nope"], ["-x"], ["--config-name", "nope"]]
FLAGS += [
    ["--config-dir", "nope"],
    ["--config-path", "nope"],
    ["--config-name"],
    ["--resolve"],
    ["-p", "model"],
    ["--"],
]


@cache
def our_choices() -> dict[str, list[str]]:
    """The choices of each of our own groups, wherever earlier commands of this process composed from."""
    use_place(own_place())
    return {group: choice_names(group) for group in group_names() if "hydra" not in group}


@cache
def our_keys() -> list[str]:
    """Every key of the default configuration and of each choice, by full name."""
    keys: dict[str, None] = {}
    for group, choices in our_choices().items():
        for choice in choices:
            keys |= dict.fromkeys(_leaves(plain_values(compose([f"{group}='{choice}'"]).config), ""))
    return list(keys)


def _leaves(values: dict[str, object], prefix: str) -> list[str]:
    names = []
    for key, value in values.items():
        below = _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else []
        names += [f"{prefix}{key}", *below]
    return names


def values() -> st.SearchStrategy[str]:
    """What may stand behind an equals sign."""
    plain = st.sampled_from([*WRONG, *INTERPOLATED, *SIGNS, *SWEEPS, *HUGE])
    quoted = st.tuples(st.sampled_from("'\""), st.text(max_size=8)).map(lambda pair: pair[0] + pair[1] + pair[0])
    numbers = st.integers(-3, 2**65).map(str) | st.floats(allow_nan=False).map(str)
    lists = st.lists(plain | st.text(max_size=4), max_size=3).map(lambda items: f"[{','.join(items)}]")
    several = st.lists(st.sampled_from(["a", "0", "0.5", "null"]), min_size=2, max_size=4).map(",".join)
    return plain | quoted | numbers | lists | several | st.text(max_size=12)


def overrides() -> st.SearchStrategy[str]:
    """One override; most are near to ones that mean something."""
    operators = st.sampled_from(["", "", "", "", "", "+", "++", "~"])
    groups = st.sampled_from(list(our_choices()))
    chosen = groups.flatmap(lambda group: st.sampled_from(our_choices()[group]).map(lambda name: f"{group}={name}"))
    any_key = st.sampled_from([*our_keys(), *PLACES, *OTHERS, *STRANGE]) | groups
    assigned = st.tuples(operators, any_key, values()).map(lambda parts: f"{parts[0]}{parts[1]}={parts[2]}")
    deleted = any_key.map(lambda key: f"~{key}")
    return chosen | chosen | assigned | assigned | assigned | deleted | st.text(max_size=20)


def command_lines() -> st.SearchStrategy[list[str]]:
    """Overrides and flags, in any order."""
    flags = st.sampled_from(FLAGS)
    part = overrides().map(lambda override: [override])
    several = st.lists(part | part | part | part | flags, max_size=5)
    return several.map(lambda parts: [argument for part in parts for argument in part])

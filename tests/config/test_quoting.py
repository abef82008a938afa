"""Values that are quoted for Hydra's grammar."""

import re
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statprune.config.compose import compose, parse_overrides, plain_values
from statprune.config.overrides import override_problems
from statprune.config.quoting import quote_equals, shown_for_shell


@pytest.mark.parametrize("path", ["outputs/x/run_s0_alpha=0.25_1a2b3c4d/model", "~/a=b", "a b=c", "=", "a\\b=c"])
def test_a_path_with_an_equals_sign_can_be_pasted(path):
    assert compose([f"model.path={path}"]).config.model.path == path


@pytest.mark.parametrize(
    "override",
    [
        "method.alpha=0.25",
        "model.path='a=b'",
        'model.path="a=b"',
        "model.path=a=b,c=d",
        "evaluation.tasks=[a=b]",
        "sparsity.layer_ratios={a:b=c}",
        "method.alpha=range(0,1,step=0.1)",
        "method.alpha=sort(3,1,reverse=true)",
        "hydra.run.dir=a=b/${name}",
        "tracking.notes=a=\\",
        "--config-dir=a=b",
        "~method",
        "-m",
    ],
)
def test_everything_else_is_left_as_it_is(override):
    assert quote_equals(override) == override


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_hydra_reads_the_whole_value(prefix):
    (parsed,) = parse_overrides([f"{prefix}hydra.run.dir=a=b/c=d"])
    assert parsed.key_or_group == "hydra.run.dir" and parsed.value() == "a=b/c=d"


@pytest.mark.parametrize(
    "text",
    [
        "a(b",
        "a)b",
        "[b",
        "a]",
        "it's",
        "a#b",
        "#1",
        "é",
        "日本",
        'a"',
        "'a",
        "50 % (new)'",
        "a;b",
        "${",
        "a=(b",
        "!?&|<>^`~",
    ],
)
def test_an_override_that_cant_be_read_is_shown_with_quotes_that_work(text):
    (problem,) = override_problems([f"tracking.notes={text}"])
    shown = problem[problem.rindex(" write ") :].removeprefix(" write ")
    (pasted,) = shlex.split(shown)
    assert problem.startswith("tracking.notes=")
    assert plain_values(compose([pasted]).config)["tracking"]["notes"] == text


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1).filter(lambda text: "$" not in text and not re.search(r"[\0\ud800-\udfff]", text)))
def test_every_text_can_be_quoted(text):
    (pasted,) = shlex.split(shown_for_shell(f"tracking.notes={text}"))
    (parsed,) = parse_overrides([pasted])
    assert parsed.value() == text

"""Values that are quoted for Hydra's grammar."""

import pytest

from statprune.config.compose import compose, parse_overrides
from statprune.config.quoting import quote_equals


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

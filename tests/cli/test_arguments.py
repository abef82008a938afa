"""Overrides and flags of a command in any order."""

from itertools import permutations

import pytest
from hydra._internal.utils import get_args_parser

from statprune.cli.arguments import overrides_first
from tests.helpers.command import statprune

PARSER = get_args_parser()


@pytest.mark.parametrize(
    ("typed", "ordered"),
    [
        ("", ""),
        ("a=1 b=2", "a=1 b=2"),
        ("a=1,2 -m b=2", "a=1,2 b=2 -m"),
        ("-m a=1 --config-dir x b=2", "a=1 b=2 -m --config-dir x"),
        ("a=1 --cfg job b=2", "a=1 b=2 --cfg job"),
        ("a=1 --cfg=job b=2", "a=1 b=2 --cfg=job"),
        ("a=1 -cd x b=2", "a=1 b=2 -cd x"),
        ("a=1 --config-d x b=2", "a=1 b=2 --config-d x"),
        ("--info a=1", "a=1 --info"),
        ("--info plugins a=1", "a=1 --info plugins"),
        ("--help a=1", "a=1 --help"),
        ("~a +b=1 -m", "~a +b=1 -m"),
        ("a=1 --unknown b=2", "a=1 b=2 --unknown"),
        ("a=1 --cfg", "a=1 --cfg"),
    ],
)
def test_overrides_come_first_and_flags_keep_their_values(typed, ordered):
    assert overrides_first(typed.split(), PARSER) == ordered.split()


@pytest.mark.parametrize("order", permutations(["a=1", "b=2", "-m", "--config-dir=x"]))
def test_hydra_reads_every_order_alike(order):
    parsed = PARSER.parse_args(overrides_first(order, PARSER))
    assert sorted(parsed.overrides) == ["a=1", "b=2"] and parsed.multirun and parsed.config_dir == "x"


def test_the_command_takes_overrides_on_both_sides_of_a_flag(tmp_path):
    done = statprune("method=wanda", "--cfg", "job", "seed=1", cwd=tmp_path)
    assert done.returncode == 0 and "name: wanda" in done.stdout and "seed: 1" in done.stdout, done.stderr


def test_what_is_wrong_on_either_side_of_a_flag_is_said(tmp_path):
    done = statprune("method=foo,wanda", "-m", "sede=1", cwd=tmp_path)
    assert done.returncode == 1 and "method=foo" in done.stderr and "sede is not a key" in done.stderr

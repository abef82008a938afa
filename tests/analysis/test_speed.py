"""What is told of a model's speed: tables, verdicts, JSON and a picture."""

import json
from dataclasses import replace

import pytest

from statprune.analysis.speed_figure import speed_figure
from statprune.analysis.speed_text import findings, print_speed, to_json
from tests.helpers.pictures import assert_readable, legend_names
from tests.helpers.speeds import MACHINE, OTHER, SAME, speed_report


def test_tables_have_medians_ranges_and_ratios_of_the_same_rounds(capsys):
    print_speed(speed_report(), MACHINE)
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    lines = [line.split() for line in text.splitlines()]
    assert ["dense", "1", "50.0", "25.0–100", "1.00", "1.00–1.00"] in lines  # 100 tokens in 1, 2 and 4 s
    assert ["csr", "8", "50.0", "25.0–100", "0.50", "0.50–0.50"] in lines  # 800 in 8, 16 and 32 s
    assert ["original", "1", "16.0", "8.00–16.0", "0.80", "0.80–0.80"] in lines  # 10 in 0.625, 0.625 and 1.25 s
    assert ["csr", "5/7", "2.0", "1.0", "1.0", "8.0"] in lines
    assert "load 0.5 on 2 cores" in text


def test_nothing_faster_is_an_answer():
    assert "Nothing faster" in findings(speed_report())[-1]
    report = speed_report(0.5)
    told = findings(report)
    assert any(
        "csr beat dense weights in every round: decode of batch 8, 2.00 (2.00–2.00) times" in own for own in told
    )
    assert not any("Nothing faster" in own for own in told)
    assert "too few" in findings(replace(report, plan=replace(report.plan, rounds=2)))[-1]


def test_one_slower_round_is_no_victory():
    report = speed_report(0.5)
    csr = report.forms[2]
    mixed = tuple(
        replace(own, prefill_seconds=(*own.prefill_seconds[:2], 99.0), decode_seconds=(99.0, *own.decode_seconds[1:]))
        for own in csr.timings
    )
    assert "Nothing faster" in findings(replace(report, forms=(*report.forms[:2], replace(csr, timings=mixed))))[-1]


def test_a_form_with_other_outputs_is_named_without_its_speed(capsys):
    report = speed_report(0.1, OTHER)
    print_speed(report, MACHINE)
    text = " ".join(capsys.readouterr().out.split())
    assert "csr computes SOMETHING ELSE than dense weights" in text and "0.7 (tolerance 0.001)" in text
    assert text.count("not timed") == 4 and "Nothing faster" in text
    assert legend_names(speed_figure(report)) == ["dense", "original"]


def test_json_has_rounds_numbers_and_the_machine():
    values = json.loads(to_json(speed_report(), MACHINE))
    assert values["schema"] == 1 and values["machine"] == MACHINE
    assert values["plan"]["prompt_tokens"] == 100 and values["missing"] == {"2:4 cutlass": "it is for a CUDA GPU"}
    csr = values["forms"][2]
    assert csr["agreement"]["is_same"] is True and csr["agreement"]["relative"] == SAME.relative
    assert csr["timings"][0]["prefill_seconds"] == [2.0, 4.0, 8.0]
    assert csr["timings"][0]["prefill_tokens_per_second"] == {"median": 25.0, "lowest": 12.5, "highest": 50.0}
    assert csr["timings"][1]["decode_times_as_fast_as_dense"]["median"] == 0.5


def test_without_new_tokens_only_the_prefill_is_told(capsys):
    report = replace(speed_report(), plan=replace(speed_report().plan, new_tokens=0))
    print_speed(report, MACHINE)
    assert "decode, tokens/s" not in capsys.readouterr().out
    assert "decode_tokens_per_second" not in to_json(report, MACHINE)
    assert len(speed_figure(report).axes) == 1


@pytest.mark.parametrize("factor", [1.1, 30.0])
def test_the_picture_can_be_read(factor):
    figure = speed_figure(speed_report(factor))
    assert_readable(figure)
    assert legend_names(figure) == ["dense", "original", "csr"]

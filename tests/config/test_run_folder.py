"""``name`` stays below outputs/."""

import pytest

from statprune.config.run_folder import link_problem, name_problem


@pytest.mark.parametrize("name", ["default", "a/b", "tables_bundled", "é", "2026-11-27", "a b", "v1.2"])
def test_a_plain_name_is_no_problem(name):
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../x", "lead out of outputs/"),
        ("a/../../x", "lead out of outputs/"),
        ("/x", "lead out of outputs/"),
        ("~/x", "lead out of outputs/"),
        ("C:\\x", "lead out of outputs/"),
        ("", "is empty"),
        (" ", "is empty"),
        ("a\0b", "signs that can't be printed"),
        ("a\nb", "signs that can't be printed"),
        ("a/", "has a part that is empty"),
        ("a//b", "has a part that is empty"),
        ("a.", "ends with a dot"),
        ("a /b", "ends with a dot or a space"),
        (".cache", "begins with a dot"),
        ("x" * 256, "is too long"),
        ("é" * 128, "is too long"),
        ("a/" * 2500 + "a", "is too long"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name, reason):
    problem = name_problem(name)
    assert problem is not None and reason in problem


def test_a_link_that_leads_out_of_outputs_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("elsewhere", "disk/inside"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "outputs").symlink_to("disk")  # all outputs on another disk
    (tmp_path / "disk" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "disk" / "also_inside").symlink_to("inside")
    (tmp_path / "disk" / "circle").symlink_to("circle")
    assert link_problem("new") is None and link_problem("inside") is None and link_problem("also_inside") is None
    assert "name=out/x is a link that leads out of outputs/" in str(link_problem("out/x"))
    assert "circle" in str(link_problem("circle"))

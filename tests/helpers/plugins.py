"""Distributions with plugins, in folders of their own that a command finds by PYTHONPATH."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from statprune.config.register import KINDS
from statprune.core.score import SCORES

EXAMPLE = Path(__file__).parents[1] / "example_extension"


def forget_registered(patch: pytest.MonkeyPatch) -> None:
    """Have the choices that this process registers or loads from now on gone when the patch is undone."""
    for registry in (SCORES, *(registry for _, registry in KINDS)):
        for name in ("_registered", "_loaded"):
            patch.setattr(registry, name, dict(getattr(registry, name)))


def install_example(folder: Path) -> Path:
    """Install the example distribution; returns the folder for PYTHONPATH."""
    source = shutil.copytree(EXAMPLE, folder / "source")  # setuptools leaves a build folder behind
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    command = [*pip, "--no-build-isolation", "--target", str(folder / "site"), str(source)]
    subprocess.run(command, check=True, timeout=120)
    return folder / "site"


def fake_distribution(site: Path, name: str, points: Mapping[str, Mapping[str, str]], code: str = "") -> None:
    """Write what an installer would, without one.

    Args:
        site: folder for PYTHONPATH.
        name: of the distribution, and of its only module.
        points: by group, its entry points.
        code: of the module.
    """
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "top_level.txt").write_text(f"{name}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {place}\n" for key, place in own.items()) for group, own in points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (site / f"{name}.py").write_text(code)

"""A folder in which a page's commands and code run: models, finished runs, and what a checkout has."""

import shutil
from pathlib import Path

import matplotlib
import pytest

from statprune.model import loading
from statprune.runs.pipeline import run
from tests.helpers.command import tiny_job
from tests.helpers.models import tiny_llama, tiny_tokenizer
from tests.helpers.pages import ROOT

TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@pytest.fixture(scope="session")
def documented(tmp_path_factory) -> Path:
    """A folder with a model, which has a chat template, and two finished runs of it."""
    base = tmp_path_factory.mktemp("documented")
    tiny_llama().save_pretrained(base / "MODEL")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(base / "MODEL")
    for name, method in (("RUN", "wanda"), ("OTHER", "cvr")):
        run(
            tiny_job(base / "MODEL", f"method={method}", "compensation=none", "sparsity=2_4", "save_model=true"),
            base / name,
        )
    return base


@pytest.fixture
def page_folder(documented, tmp_path, monkeypatch) -> Path:
    """The working folder of a page."""
    monkeypatch.chdir(tmp_path)
    for name in ("MODEL", "DENSE", "BASE"):
        Path(name).symlink_to(documented / "MODEL")
    for name in ("RUN", "OTHER"):
        shutil.copytree(documented / name, f"outputs/default/{name}")
        Path(name).symlink_to(f"outputs/default/{name}")
    for name in ("examples", "experiments", "benchmarks"):
        Path(name).symlink_to(ROOT / name)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    matplotlib.use("Agg")
    return tmp_path


@pytest.fixture
def tiny_default(documented, monkeypatch) -> None:
    """``load_model()`` opens the tiny model."""
    original = loading.load_model

    def load_model(path=str(documented / "MODEL"), **options):
        return original(path, **options)

    monkeypatch.setattr(loading, "load_model", load_model)

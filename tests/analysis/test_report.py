"""The report of a folder of runs: what it says, what it leaves out and names, and what a browser makes of it."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas
import pytest
import yaml
from statprune.analysis.collect import collect
from statprune.analysis.report import Cell, main, report, runs_table

from statprune.errors import StatpruneError
from statprune.runs.pipeline import run
from tests.helpers.command import tiny

HOSTILE = "<script>document.title='broken'</script>\"'&amp;<b>"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# sorts by perplexity twice and by pattern once, and leaves what it saw in the page; a broken picture has no width
PROBE = """
<script>
addEventListener("load", () => {
  const table = document.querySelector("#runs"), heads = [...table.tHead.rows[0].cells];
  const named = name => heads.findIndex(head => head.textContent === name);
  const sorted = name => {
    heads[named(name)].querySelector("button").click();
    return [[...table.tBodies[0].rows].map(row => row.cells[named(name)].textContent), heads[named(name)].ariaSort];
  };
  const seen = {
    up: sorted("perplexity bundled"), down: sorted("perplexity bundled"), patterns: sorted("pattern"),
    runs: sorted("run"), images: [...document.images].map(image => image.naturalWidth), title: document.title,
    links: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !name.startsWith("data:")),
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
  };
  const probe = document.createElement("pre");
  probe.id = "probe";
  probe.textContent = encodeURIComponent(JSON.stringify(seen));
  document.body.append(probe);
});
</script>
"""


class Page(HTMLParser):
    """Tags with their attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, tiny_folder):
    """Six runs, one of them with markup where people write; a damaged record, and a run that was cut off."""
    folder = tmp_path_factory.mktemp("experiment & <i>more")
    short = "evaluation.seq_len=16"
    for name, changes in {
        "dense": ["method=dense"],
        "wanda-0": ["method=wanda"],
        "wanda-10": ["method=wanda", "seed=10"],
        "wanda-6": ["method=wanda", "sparsity.ratio=0.6"],
        "wanda-2-4": ["method=wanda", "sparsity='2_4'"],
        "cvr": ["method=cvr", "method.alpha=0.25"],
        "cvr <b>&": ["method=cvr"],
    }.items():
        run(tiny(tiny_folder, short, *changes), folder / name)
    path = folder / "cvr <b>&" / "result.json"
    record = json.loads(path.read_text())
    record["config"]["tracking"]["notes"] = record["environment"]["device"] = HOSTILE
    record["metrics"]["perplexity"]["bundled"]["pruned"] = None  # not finite
    path.write_text(json.dumps(record))
    (folder / "damaged").mkdir()
    (folder / "damaged" / "result.json").write_text("{<b>")
    (folder / "cut" / ".hydra").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def page(experiment, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    report(experiment, path)
    return path


def test_the_page_says_what_the_records_hold(page, experiment):
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    said = " ".join(parsed.texts)
    for name in ("7 finished, 2 left out", "cvr + energy, dense, wanda", "0.5, 0.6, 2:4, dense", "cvr <b>&"):
        assert name in said
    record = json.loads((experiment / "wanda-0" / "result.json").read_text())
    assert f"{record['metrics']['perplexity']['bundled']['pruned']:.4f}" in parsed.texts
    assert record["date"][:16].replace("T", " ") in parsed.texts and f"{record['date'][:10]} (UTC)" in said
    assert record["environment"]["git_commit"] in said and f"torch {record['environment']['packages']['torch']}" in said
    for left in ("damaged/result.json can't be read", "cut has no result.json", "cvr <b>& is not in the figures"):
        assert sum(left in part for part in parsed.texts) == 1
    configurations = re.findall(r"<pre>(.*?)</pre>", text, flags=re.S)
    assert len(configurations) == 7 and yaml.safe_load(configurations[0])["method"]["name"] in ("cvr", "dense", "wanda")
    captions = [attributes["alt"] for tag, attributes in parsed.tags if tag == "img"]
    assert captions == [
        "model: perplexity on bundled against sparsity",
        "model: perplexity on bundled against method.alpha",
        "model: perplexity on bundled against seconds of pruning",
        "model: relative output error by block, sparsity 0.5, seed 0",
    ]


def test_accuracies_have_columns_and_a_run_without_them_empty_cells(experiment):
    frame = collect(experiment).frame
    answers = frame[:1].assign(metric="acc", on="bundled", dense=0.83, pruned=0.72)
    columns, rows = runs_table(pandas.concat([frame, answers], ignore_index=True), experiment)
    assert columns[4:9] == [
        "method.alpha",
        *(f"{m} bundled{s}" for m in ("perplexity", "acc") for s in (" (dense)", "")),
    ]
    assert rows[0][7:9] == [Cell("0.8300", 0.83), Cell("0.7200", 0.72)] and rows[1][7:9] == [Cell(""), Cell("")]
    assert len(rows) == 7 and all(len(row) == len(columns) for row in rows)


def test_others_text_is_escaped_and_nothing_is_fetched(page):
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert HOSTILE not in text and HOSTILE in "".join(parsed.texts)
    assert [tag for tag, _ in parsed.tags].count("script") == 1 and not {"b", "i", "link"} & {t for t, _ in parsed.tags}
    for tag, attributes in parsed.tags:
        assert all(value.startswith("data:image/png;base64,") for key, value in attributes.items() if key == "src"), tag
        assert "href" not in attributes
    assert "http:" not in text and "https:" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_browser_shows_the_figures_and_sorts_the_table(page, tmp_path):
    copy = tmp_path / "probed.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"]
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)
    assert found, done.stderr
    seen = json.loads(unquote(found[1]))
    (up, is_up), (down, is_down) = seen["up"], seen["down"]
    assert up[-1] == down[-1] == "" and (is_up, is_down) == ("ascending", "descending")  # what is missing comes last
    numbers = [float(text) for text in up[:-1]]
    assert len(numbers) == 6 and numbers == sorted(numbers) and down[:-1] == up[:-1][::-1]
    assert seen["patterns"][0] == ["0.5", "0.5", "0.5", "0.5", "0.6", "2:4", "dense"]
    names = seen["runs"][0]
    assert names.index("wanda-6") < names.index("wanda-10")  # as people count
    assert len(seen["images"]) == 4 and all(width > 500 for width in seen["images"])
    assert seen["title"].endswith("statprune report") and seen["links"] == [] and not seen["wide"]


def test_the_command_writes_beside_the_runs_or_says_why_not(experiment, tmp_path, capsys):
    copy = tmp_path / "one"
    shutil.copytree(experiment / "dense", copy / "dense")
    done = subprocess.run(
        [sys.executable, "-m", "statprune.analysis.report", str(copy)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0 and done.stdout.strip() == str(copy / "report.html")
    assert "1 finished, 0 left out" in (copy / "report.html").read_text(encoding="utf-8")
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "nowhere holds no finished run; give the folder of an experiment" in capsys.readouterr().err
    with pytest.raises(StatpruneError, match=r"holds no finished run: .*damaged/result\.json can't be read"):
        report(experiment / "damaged", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_dense_run_alone_has_a_page_without_figures(experiment, tmp_path):
    report(experiment / "dense", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "These runs support no figure" in text and "<td>dense</td>" in text and "<img" not in text

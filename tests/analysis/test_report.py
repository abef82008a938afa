"""The report of a folder of runs: what it says, what it leaves out and names, and what a browser makes of it."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote

import pandas
import pytest
import yaml

from statprune.analysis.collect import collect
from statprune.analysis.report import Cell, drawings, report, runs_table
from statprune.errors import StatpruneError
from statprune.runs.pipeline import run
from tests.helpers.command import tiny_job
from tests.helpers.old_records import FINISHED, PENDING, copy_schema_1, schema_1_values
from tests.helpers.runs import record_text

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
    wide: [document.documentElement, ...document.querySelectorAll(".wide")]
      .filter(part => part.scrollWidth > part.clientWidth).map(part => part.tagName),
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
        self.text, self.tags, self.texts = text, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def words(self):
        """Everything that is written on the page."""
        return " ".join(self.texts)


def page_of(folder, path):
    """The report of a folder of runs, written and read."""
    report(folder, path)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, tiny_folder):
    """Seven runs, one of them with markup where people write; a damaged record, and a run that was cut off."""
    folder = tmp_path_factory.mktemp("experiment & <i>more")
    for name, changes in {
        "dense": ["method=dense"],
        "wanda-0": ["method=wanda"],
        "wanda-10": ["method=wanda", "seed=10"],
        "wanda-6": ["method=wanda", "sparsity.ratio=0.6"],
        "wanda-2-4": ["method=wanda", "sparsity='2_4'"],
        "cvr": ["method=cvr", "method.alpha=0.25"],
        "cvr <b>&": ["method=cvr"],
    }.items():
        run(tiny_job(tiny_folder, "evaluation.seq_len=16", *changes), folder / name)
    path = folder / "cvr <b>&" / "result.json"
    record = json.loads(path.read_text())
    record["config"]["tracking"]["notes"] = record["environment"]["device"] = HOSTILE
    record["perplexity"]["bundled"]["pruned"] = None  # not finite
    path.write_text(record_text(record))
    (folder / "damaged").mkdir()
    (folder / "damaged" / "result.json").write_text("{<b>")
    (folder / "cut" / ".hydra").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def page(experiment, tmp_path_factory):
    return page_of(experiment, tmp_path_factory.mktemp("page") / "new" / "report.html")


@pytest.fixture(scope="module")
def record(experiment):
    """What the record of one of the runs holds."""
    return json.loads((experiment / "wanda-0" / "result.json").read_text())


@pytest.mark.parametrize(
    "text", ["7 finished, 2 left out", "cvr + energy, dense, wanda", "0.5, 0.6, 2:4, dense", "cvr <b>&"]
)
def test_the_page_sums_up_the_runs(text, page):
    assert text in page.words


def test_the_page_shows_the_perplexity_of_a_record(page, record):
    assert f"{record['perplexity']['bundled']['pruned']:.4f}" in page.texts


def test_the_page_shows_the_date_of_a_record(page, record):
    assert record["date"][:16].replace("T", " ") in page.texts and f"{record['date'][:10]} (UTC)" in page.words


def test_the_page_shows_the_environment_of_a_record(page, record):
    environment = record["environment"]
    assert environment["git_commit"] in page.words and f"torch {environment['packages']['torch']}" in page.words


@pytest.mark.parametrize(
    "sentence", ["damaged/result.json can't be read", "cut has no result.json", "cvr <b>& is not in the figures"]
)
def test_the_page_names_once_what_it_leaves_out(sentence, page):
    assert sum(sentence in part for part in page.texts) == 1


def test_the_page_has_the_configuration_of_each_run(page):
    configurations = re.findall(r"<pre>(.*?)</pre>", page.text, flags=re.S)
    assert len(configurations) == 7 and yaml.safe_load(configurations[0])["method"]["name"] in ("cvr", "dense", "wanda")


def test_the_page_has_every_figure_that_the_runs_support(page):
    captions = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert captions == [
        "model: perplexity on bundled against sparsity",
        "model: perplexity on bundled against method.alpha",
        "model: perplexity on bundled against seconds of pruning",
        "model: relative output error by block, sparsity 0.5, seed 0",
        "model: relative output error by block, sparsity 0.6, seed 0",
        "model: relative output error by block, sparsity 2:4, seed 0",
    ]


def test_patterns_of_the_same_sparsity_are_all_drawn(experiment):
    frame = collect(experiment).frame
    same = frame[(frame.label == "wanda") & (frame.pattern != "0.6")]
    captions = [drawing.caption for drawing in drawings(same, "bundled")]
    assert captions == [
        "perplexity on bundled against sparsity",
        "relative output error by block, sparsity 0.5, seed 0",
        "relative output error by block, sparsity 2:4, seed 0",
    ]


def test_the_profile_of_a_pattern_has_its_own_first_seed(experiment):
    frame = collect(experiment).frame
    wanda = frame[frame.label == "wanda"].assign(seed=lambda rows: rows.seed.where(rows.pattern != "2:4", 7))
    assert "relative output error by block, sparsity 2:4, seed 7" in [
        drawing.caption for drawing in drawings(wanda, "bundled")
    ]


@pytest.fixture(scope="module")
def table(experiment):
    """Columns and rows of the seven runs, of which the first has an accuracy, too."""
    frame = collect(experiment).frame
    answers = frame[:1].assign(metric="acc", on="bundled", dense=0.83, pruned=0.72)
    return runs_table(pandas.concat([frame, answers], ignore_index=True), experiment)


def test_accuracies_have_columns_beside_perplexities(table):
    assert table[0][4:9] == [
        "method.alpha",
        *("perplexity bundled (dense)", "perplexity bundled", "acc bundled (dense)", "acc bundled"),
    ]


def test_a_run_without_accuracies_has_empty_cells(table):
    _, rows = table
    assert rows[0][7:9] == [Cell("0.8300", 0.83), Cell("0.7200", 0.72)] and rows[1][7:9] == [Cell(""), Cell("")]


def test_every_run_has_a_row_with_a_cell_for_each_column(table):
    columns, rows = table
    assert len(rows) == 7 and all(len(row) == len(columns) for row in rows)


def test_texts_that_others_wrote_are_escaped(page):
    assert HOSTILE not in page.text and HOSTILE in "".join(page.texts)
    assert [tag for tag, _ in page.tags].count("script") == 1 and not {"b", "i"} & {tag for tag, _ in page.tags}


def test_the_page_fetches_nothing(page):
    for tag, attributes in page.tags:
        assert all(value.startswith("data:image/png;base64,") for key, value in attributes.items() if key == "src"), tag
        assert tag != "link" and "href" not in attributes
    assert "http:" not in page.text and "https:" not in page.text


@pytest.fixture(scope="module")
def seen(page, tmp_path_factory):
    """What a browser shows of the page."""
    return browsed(page.text, tmp_path_factory.mktemp("browser"))


def browsed(text, folder):
    """What a browser shows of a page, 1300 pixels wide."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    copy = folder / "probed.html"
    copy.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,900"]
    command = [CHROMIUM, *options, f"--user-data-dir={folder / 'profile'}", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    probe = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)
    assert probe, done.stderr
    return json.loads(unquote(probe[1]))


def test_a_browser_sorts_numbers_up_and_down_with_missing_ones_last(seen):
    (up, is_up), (down, is_down) = seen["up"], seen["down"]
    assert up[-1] == down[-1] == "" and (is_up, is_down) == ("ascending", "descending")
    numbers = [float(text) for text in up[:-1]]
    assert len(numbers) == 6 and numbers == sorted(numbers) and down[:-1] == up[:-1][::-1]


def test_a_browser_sorts_patterns_by_their_ratio(seen):
    assert seen["patterns"][0] == ["0.5", "0.5", "0.5", "0.5", "0.6", "2:4", "dense"]


def test_a_browser_sorts_names_as_people_count(seen):
    names = seen["runs"][0]
    assert names.index("wanda-6") < names.index("wanda-10")


def test_a_browser_shows_the_figures(seen):
    assert len(seen["images"]) == 6 and all(width > 500 for width in seen["images"])


def test_a_browser_shows_the_whole_page_and_fetches_nothing(seen):
    assert seen["title"].endswith("statprune report") and seen["links"] == []


def test_a_browser_scrolls_neither_the_page_nor_its_table_sideways(seen):
    assert seen["wide"] == []


def test_a_page_with_many_patterns_and_long_names_does_not_scroll_sideways(page, tmp_path):
    summary, names = ", ".join(f"owl0.{n}" for n in range(400)), "a_long_name_of_a_run" * 20
    text = page.text.replace(">0.5, 0.6, 2:4, dense<", f">{summary}<").replace(">wanda-6<", f">{names}<")
    assert summary in text and names in text and browsed(text, tmp_path)["wide"] == []


def test_a_folder_without_a_finished_run_has_no_page(experiment, tmp_path):
    with pytest.raises(StatpruneError, match=r"holds no finished run: .*damaged/result\.json can't be read"):
        report(experiment / "damaged", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_dense_run_alone_has_a_page_without_figures(experiment, tmp_path):
    text = page_of(experiment / "dense", tmp_path / "page.html").text
    assert "These runs support no figure" in text and "<td>dense</td>" in text and "<img" not in text


@pytest.fixture(scope="module")
def old_page(tmp_path_factory):
    """The report of runs that wrote schema 1."""
    folder = tmp_path_factory.mktemp("old")
    return page_of(copy_schema_1(folder / "runs"), folder / "report.html")


@pytest.mark.parametrize("name", FINISHED)
def test_the_page_shows_the_numbers_of_records_of_schema_1(name, old_page):
    perplexity = schema_1_values(name)["metrics"]["perplexity"]["bundled"]
    assert name in old_page.texts
    assert f"{perplexity['dense']:.4f}" in old_page.texts and f"{perplexity['pruned']:.4f}" in old_page.texts


def test_the_page_shows_the_accuracy_of_a_record_of_schema_1(old_page):
    mean = schema_1_values("zero_shot")["metrics"]["zero_shot"]["mean"]
    assert f"{mean['dense']:.4f}" in old_page.texts and f"{mean['pruned']:.4f}" in old_page.texts


def test_the_page_names_a_pending_record_of_schema_1_and_leaves_it_out(old_page):
    assert "3 finished, 1 left out" in old_page.words
    assert f"{PENDING}/result.json lacks its zero-shot evaluation and is left out" in old_page.words
    assert PENDING not in old_page.texts  # as the name of a run

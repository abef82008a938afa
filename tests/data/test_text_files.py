"""Tables and conversations as text: every format, what is skipped, and a sentence for what is no text."""

import bz2
import gzip
import hashlib
import json
import lzma
from pathlib import Path

import pandas as pd
import pyarrow
import pytest

from statprune.data.sources import get_source
from statprune.data.text_files import files_of
from statprune.data.windows import evaluation_windows
from statprune.errors import DataError
from tests.helpers.models import tiny_tokenizer

ROWS = [{"id": 1, "text": "one line\nand more"}, {"id": 2, "text": None}, {"id": 3, "text": " \n"}]
ROWS += [{"id": 4, "text": 'two, "quoted"'}]
LINES = "\n".join(map(json.dumps, ROWS)) + "\n"
CHATS = [{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "words"}]}] * 2
TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def zstandard(file: Path, content: bytes) -> None:
    with pyarrow.output_stream(str(file), compression="zstd") as stream:
        stream.write(content)


WRITERS = {
    "a.jsonl": lambda file: file.write_text(LINES),
    "a.ndjson": lambda file: file.write_text(LINES),
    "a.json": lambda file: file.write_text(json.dumps(ROWS, indent=1)),
    "lines.json": lambda file: file.write_text(LINES),
    "a.csv": lambda file: pd.DataFrame(ROWS).to_csv(file, index=False),
    "a.tsv": lambda file: pd.DataFrame(ROWS).to_csv(file, index=False, sep="\t"),
    "a.parquet": lambda file: pd.DataFrame(ROWS).to_parquet(file),
    "a.jsonl.gz": lambda file: file.write_bytes(gzip.compress(LINES.encode())),
    "a.JSONL.bz2": lambda file: file.write_bytes(bz2.compress(LINES.encode())),
    "a.jsonl.xz": lambda file: file.write_bytes(lzma.compress(LINES.encode())),
    "a.jsonl.zst": lambda file: zstandard(file, LINES.encode()),
}


def problem(path: object, field: str | None = None) -> str:
    found = get_source("text", field).problem("calibration", str(path))
    assert found is not None and "\n" not in found and "; " in found, found
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_is_its_column_of_texts_joined_by_blank_lines(name, tmp_path, tokenizer):
    WRITERS[name](tmp_path / name)
    source = get_source("text")
    whole = "one line\nand more\n\n" + 'two, "quoted"'
    assert source.problem("calibration", str(tmp_path / name)) is None
    assert source.text("calibration", str(tmp_path / name)) == whole
    origin = evaluation_windows(tokenizer, "text", 4, path=str(tmp_path / name)).origin
    assert origin.skipped_rows == 2 and origin.sha256 == hashlib.sha256(whole.encode()).hexdigest()


def test_plain_text_is_read_as_it_was(tmp_path, tokenizer):
    (tmp_path / "a.md").write_text('{"text": "prose"}\r\n, it says, ' * 9)
    windows = evaluation_windows(tokenizer, "text", 8, path=str(tmp_path / "a.md"))
    text = (tmp_path / "a.md").read_text()
    assert windows.ids.flatten().tolist() == tokenizer(text)["input_ids"][: windows.ids.numel()]
    assert windows.origin.sha256 == hashlib.sha256(text.encode()).hexdigest() and windows.origin.skipped_rows == 0


def test_a_named_column_is_read(tmp_path):
    (tmp_path / "a.csv").write_text("text,body\nno,yes\n")
    assert get_source("text", "body").documents("evaluation", str(tmp_path / "a.csv")) == ["yes"]


def test_a_folder_and_a_pattern_are_read_in_the_order_of_names(tmp_path):
    for name in ("b.jsonl", "a.jsonl", ".hidden.jsonl"):
        (tmp_path / name).write_text(json.dumps({"text": name}))
    wanted = ["a.jsonl", "b.jsonl"]
    assert get_source("text").documents("evaluation", str(tmp_path)) == wanted
    assert get_source("text").documents("evaluation", f"{tmp_path}/*.jsonl") == wanted
    assert [file.name for file in files_of(str(tmp_path))] == wanted


def test_hidden_files_are_no_input(tmp_path):
    for name in ("a.txt", ".hidden.txt", "below/b.txt", ".git/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("words")
    source = get_source("text")
    assert source.files_read("calibration", str(tmp_path)) == {
        name: tmp_path / name for name in ("a.txt", "below/b.txt")
    }
    assert source.files_read("calibration", f"{tmp_path}/a.txt") == {"a.txt": tmp_path / "a.txt"}
    assert source.files_read("calibration", f"{tmp_path}/*.txt") == {f"{tmp_path}/a.txt": tmp_path / "a.txt"}


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.zst"])
def test_quotation_marks_that_dont_pair_are_letters_where_cells_are_parted_by_tabs(name, tmp_path):
    content = '\ufefftext\tn\r\nsay "hi"\t1\r\n"Hello," she said.\t2\r\n"opens\t3\r\n'.encode()
    zstandard(tmp_path / name, content) if name.endswith(".zst") else (tmp_path / name).write_bytes(content)
    documents = get_source("text").documents("evaluation", str(tmp_path / name))
    assert documents == ['say "hi"', '"Hello," she said.', '"opens']


def test_nulls_of_a_local_hub_copy_are_left_out_and_counted(wikitext2, tokenizer):
    (file,) = wikitext2.rglob("test-*")
    pd.DataFrame({"text": ["", None, "some words " * 20]}).to_parquet(file)
    windows = evaluation_windows(tokenizer, "wikitext2", 8, path=str(wikitext2))
    assert windows.origin.skipped_rows == 1
    assert get_source("wikitext2").text("evaluation", str(wikitext2)) == "\n\n" + "some words " * 20


def test_numbers_in_a_local_hub_copy_are_a_sentence(wikitext2):
    (file,) = wikitext2.rglob("test-*")
    pd.DataFrame({"text": [1, 2]}).to_parquet(file)
    with pytest.raises(DataError, match="its column text is of the type int64"):
        get_source("wikitext2").text("evaluation", str(wikitext2))


BAD_TABLES = {
    "absent.jsonl": (
        b'{"body": "x", "id": 1}\n',
        "has no column 'text'; name the one to read by calibration.field=, of",
    ),
    "numbers.jsonl": (b'{"text": 5}\n', "row 1 of the column 'text' of"),
    "numbers.csv": (b"text\n5\n6.5\n", "holds numbers"),
    "halves.jsonl": (b'{"text": "\\ud800"}\n', "half of a surrogate pair"),
    "cut.tsv": (b'text\tn\n"one"\t1\n"cut\noff', "line 4: unexpected end of data"),
    "damaged.jsonl": (b'{"text": "x"}\n{"text"\n', "line 2: Expecting"),
    "list.json": (b'["a"]', "row 1: it is no object"),
    "deep.json": (b"[" * 100_000, "recursion"),
    "empty.jsonl": (b"", "has no rows"),
    "blank.jsonl": (b'{"text": null}\n{"text": " "}\n', "has no text in any of its 2 rows"),
    "quote.csv": (b'text\n"never closed\n', "unexpected end of data"),
    "wide.csv": (b"text\na,b\n", "line 2 has 2 cells, and the first line names 1"),
    "latin.jsonl": ('{"text": "é"}\n'.encode("latin-1"), "not UTF-8"),
    "cut.jsonl.gz": (gzip.compress(LINES.encode())[:-9], "damaged"),
    "cut.parquet": (b"PAR1 nothing", "can't be read as PARQUET"),
    "table.txt": (b'{"text": "a"}\n{"text": "b"}\n', "holds JSON lines, not prose"),
    "list.jsonl": (b'{"text": ["a", "b"]}\n', "a list with an item of the type str, not one of messages"),
    "roles.jsonl": (b'{"conversations": [{"from": "user", "value": "hi"}]}\n', "no dictionary with role and content"),
    "page.html": (b"<p>words</p>", "of a kind that is not read (.html)"),
    "weights.safetensors": (b"", "of a kind that is not read (.safetensors)"),
    "zero.txt": (b"a\0b", "zero bytes"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_what_is_no_text_is_refused_in_a_sentence(name, tmp_path):
    content, wanted = BAD_TABLES[name]
    (tmp_path / name).write_bytes(content)
    assert wanted in problem(tmp_path / name)


def test_a_truncated_zstandard_file_is_a_sentence(tmp_path):
    zstandard(tmp_path / "a.jsonl.zst", LINES.encode())
    (tmp_path / "a.jsonl.zst").write_bytes((tmp_path / "a.jsonl.zst").read_bytes()[:-9])
    assert "damaged" in problem(tmp_path / "a.jsonl.zst")


def test_a_column_of_plain_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    assert "is plain text, which has no columns; leave calibration.field out" in problem(tmp_path / "a.txt", "text")


def test_text_and_tables_together_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "README.md").write_text("about")
    assert "plain text (README.md) and to tables (a.jsonl)" in problem(tmp_path)


def test_a_file_that_lacks_the_column_of_the_others_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "b.jsonl").write_text('{"body": "x"}')
    assert f"b.jsonl has no column 'text', which {tmp_path}/a.jsonl has; name one that both have" in problem(tmp_path)


def test_an_empty_path_is_not_the_folder_one_is_in(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("words")
    monkeypatch.chdir(tmp_path)
    assert "calibration.path is not set" in problem("")


def test_conversations_are_written_by_the_tokenizers_template(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [*CHATS, {"messages": []}])))
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    windows = evaluation_windows(tokenizer, "text", 4, path=str(tmp_path / "a.jsonl"))
    text = "\n\n".join(["<s>user: hello\n<s>assistant: words\n"] * 2)
    assert windows.ids.flatten().tolist() == tokenizer(text)["input_ids"][: windows.ids.numel()]
    assert windows.origin.skipped_rows == 1 and windows.origin.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_conversations_without_a_template_are_a_sentence(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, CHATS)))
    with pytest.raises(DataError, match="holds conversations, and the model's tokenizer has no chat template; name"):
        evaluation_windows(tokenizer, "text", 4, path=str(tmp_path / "a.jsonl"))

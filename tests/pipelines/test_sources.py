"""Files as rows: what real exports look like, and what of a bad file survives."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.features.mapping import TableSpec
from rolecall.features.validation import RESERVED, ROW
from rolecall.pipelines.sources import Broken, SourceFile, labelled
from rolecall.platform.errors import SchemaError


def source(path: Path, content: bytes, **spec: Any) -> SourceFile:
    path.write_bytes(content)
    columns = {name: {"constant": "x"} for name in ("job_id", "title", "updated_at")}
    return labelled(path, TableSpec.model_validate({"target": "jobs", "files": ["*"], "columns": columns} | spec))


def read(file: SourceFile, size: int = 2) -> tuple[list[dict[str, Any]], list[Broken]]:
    chunks = list(file.chunks(size))
    rows = [row for chunk in chunks for row in chunk.rows.drop(set(RESERVED) - {ROW}).to_dicts()]
    return rows, [one for chunk in chunks for one in chunk.broken]


def values(rows: Iterable[dict[str, Any]]) -> list[list[Any]]:
    return [[value for name, value in row.items() if name != ROW] for row in rows]


def test_byte_order_mark_windows_lines_and_quoted_line_breaks_are_read(tmp_path: Path) -> None:
    file = source(tmp_path / "a.csv", b'\xef\xbb\xbfid,text\r\n1,"two\r\nlines, ""quoted"""\r\n\r\n2,b')
    rows, broken = read(file)
    assert file.columns() == ["id", "text"]
    assert (values(rows), broken) == ([["1", 'two\r\nlines, "quoted"'], ["2", "b"]], [])


def test_ragged_rows_are_set_apart_and_keep_their_numbers(tmp_path: Path) -> None:
    rows, broken = read(source(tmp_path / "a.csv", b"id,text\n1\n2,b\n3,c,d\n4,e\n"))
    assert [row[ROW] for row in rows] == [2, 4]
    assert [(one.row, one.reason, one.text) for one in broken] == [
        (1, "ragged_row", '["1"]'),
        (3, "ragged_row", '["3", "c", "d"]'),
    ]


def test_a_quote_that_is_never_closed_is_told_and_not_read(tmp_path: Path) -> None:
    rows, broken = read(source(tmp_path / "a.csv", b'id,text\n1,a\n2,"b\n3,c\n4,d\n'))
    assert values(rows) == [["1", "a"]]
    assert "never closed and swallows the file's last 3 lines" in broken[0].message


def test_without_quotes_a_quote_is_a_character(tmp_path: Path) -> None:
    rows, _ = read(source(tmp_path / "a.tsv", b'id\ttext\r\n1\t"half\r\n2\ta "b" c\r\n', quote=""))
    assert values(rows) == [["1", '"half'], ["2", 'a "b" c']]


def test_bytes_that_are_no_text_cost_their_own_row_only(tmp_path: Path) -> None:
    rows, broken = read(source(tmp_path / "a.csv", b"id,text\n1,caf\xe9\n2,caf\xc3\xa9\n"), size=10)
    assert values(rows) == [["2", "café"]]
    assert (broken[0].row, broken[0].reason, broken[0].message[:4]) == (1, "bad_utf8", "text")
    latin, none = read(source(tmp_path / "b.csv", b"id,text\n1,caf\xe9\n", encoding="latin-1"))
    assert (values(latin), none) == ([["1", "café"]], [])


def test_json_lines_take_absent_for_null_and_refuse_what_is_no_object(tmp_path: Path) -> None:
    lines = [
        b'{"id": 1, "list": ["a"], "on": true}',
        b"",
        b"[1]",
        b'{"id": "2"}',
        b"{",
        b'"\xff"',
        b'{"id": "\\ud800"}',
    ]
    rows, broken = read(source(tmp_path / "a.jsonl", b"\r\n".join(lines)), size=10)
    assert values(rows) == [["1", '["a"]', "true"], ["2", None, None]]
    assert [(one.row, one.reason) for one in broken] == [
        (2, "bad_json"),
        (4, "bad_json"),
        (5, "bad_utf8"),
        (6, "bad_utf8"),
    ]


def test_gzip_reads_as_the_plain_file(tmp_path: Path) -> None:
    plain = b"id,text\n1,a\n"
    assert read(source(tmp_path / "a.csv.gz", gzip.compress(plain))) == read(source(tmp_path / "a.csv", plain))


def test_parquet_keeps_types_and_sets_bad_text_apart(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffc")]
    )
    pq.write_table(pa.table({"id": [1, 2, 3], "text": texts}), tmp_path / "t.parquet")
    rows, broken = read(source(tmp_path / "a.parquet", (tmp_path / "t.parquet").read_bytes()), size=2)
    assert values(rows) == [[1, "a"], [3, "c"]]
    assert [(one.row, one.reason) for one in broken] == [(2, "bad_utf8")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"id,id\n1,2\n"),
        ("a.csv", b"\xff\xfei\x00d\x00\n\x00"),
        ("a.csv.gz", gzip.compress(b"id,text\n" + bytes(range(256)) * 100)[:-20]),
        ("a.csv.gz", b"not gzip"),
        ("a.parquet", b"PAR1 not"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    file = source(tmp_path / name, content)
    with pytest.raises(SchemaError, match=r"a\.csv|a\.parquet"):
        read(file)


def test_the_label_follows_the_content_not_the_place(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    first, same = source(tmp_path / "a.csv", b"id\n1\n"), source(tmp_path / "b" / "a.csv", b"id\n1\n")
    assert first.label == same.label != source(tmp_path / "a.csv", b"id\n2\n").label


@given(st.binary(max_size=300), st.integers(1, 5))
def test_any_bytes_give_rows_and_broken_rows_numbered_without_a_gap(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int
) -> None:
    for name, head in (("a.csv", b"id,text\n"), ("a.jsonl", b"")):
        file = source(tmp_path_factory.mktemp("any") / name, head + content)
        rows, broken = read(file, size)
        numbers = sorted([row[ROW] for row in rows] + [one.row for one in broken])
        assert numbers == list(range(1, len(numbers) + 1))
        assert json.dumps([one.text for one in broken]).encode()

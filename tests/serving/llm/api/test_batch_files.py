"""The files at both ends: every line found and read once, and answers that outlive a run that was killed."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.platform.errors import InputError, UnavailableError
from rolecall.platform.object_store import located
from rolecall.serving.llm.batch_file.job import find_lines
from rolecall.serving.llm.batch_file.line import Reply, no_request
from rolecall.serving.llm.batch_file.output import AnswerFile, answer_file
from rolecall.serving.llm.batch_file.source import open_source
from tests.services import S3Bucket

LINE = st.text(st.characters(blacklist_characters="\n\ufeff", codec="utf-8"), max_size=12)


@settings(max_examples=50)
@given(st.lists(LINE, max_size=20), st.booleans(), st.booleans(), st.integers(1, 7))
def test_every_line_is_read_once_and_in_order(lines: list[str], ended: bool, marked: bool, rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.jsonl"
        text = "\n".join(lines) + ("\n" if ended else "")
        path.write_bytes((b"\xef\xbb\xbf" if marked else b"") + text.encode())
        source = pickle.loads(pickle.dumps(open_source(str(path), {})))
        wanted = [line.encode().strip() for line in lines if line.encode().strip()]
        if not wanted:
            with pytest.raises(InputError, match="no lines"):
                find_lines(source, set(), rows=rows)
            return
        tables, kept = find_lines(source, set(), rows=rows)
        assert kept == 0
        assert all(1 <= len(table) <= rows for table in tables)
        read = [line for table in tables for line in source.read(table)]
        assert read == wanted


@settings(max_examples=40)
@given(st.lists(st.text("ab é", max_size=9), min_size=1, max_size=30), st.integers(1, 9), st.integers(1, 9))
def test_parquet_says_what_lines_of_json_say(prompts: list[str], group: int, rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.parquet"
        made = [{"custom_id": str(n), "prompt": p, "seed": n if n % 2 else None} for n, p in enumerate(prompts)]
        pq.write_table(pa.Table.from_pylist(made), path, row_group_size=group)
        source = open_source(str(path), {})
        tables, _ = find_lines(source, {"0"}, rows=rows) if len(made) > 1 else find_lines(source, set(), rows=rows)
        read = [orjson.loads(line) for table in tables for line in source.read(table)]
        plain = [{name: value for name, value in row.items() if value is not None} for row in made]
        assert read == (plain[1:] if len(made) > 1 else plain)


def test_a_body_may_be_json_text_in_parquet(tmp_path: Path) -> None:
    row = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": '{"model": "m", "prompt": "p"}'}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "in.parquet")
    source = open_source(str(tmp_path / "in.parquet"), {})
    [table], _ = find_lines(source, set(), rows=8)
    assert orjson.loads(source.read(table)[0])["body"] == {"model": "m", "prompt": "p"}


def test_rows_of_both_kinds_may_share_a_column_of_bodies(tmp_path: Path) -> None:
    text = {"model": "m", "prompt": "p", "max_tokens": 3}
    chat = {"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b", "name": "n"}]}
    rows = [
        {"custom_id": url, "method": "POST", "url": url, "body": body}
        for url, body in (("/v1/completions", text), ("/v1/chat/completions", chat))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    source = open_source(str(tmp_path / "in.parquet"), {})
    [table], _ = find_lines(source, set(), rows=8)
    assert [orjson.loads(line) for line in source.read(table)] == rows


def test_an_id_of_two_lines_and_answers_to_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"custom_id": "a", "prompt": "x"}\n\n{"prompt": "y"}\n{"custom_id": "a", "prompt": "z"}\n')
    with pytest.raises(InputError, match="custom_id 'a' is of line 1 and of line 4"):
        find_lines(open_source(str(path), {}), set(), rows=8)
    path.write_text('{"custom_id": "line-2", "prompt": "x"}\n{"prompt": "y"}\n')
    with pytest.raises(InputError, match="line-2"):
        find_lines(open_source(str(path), {}), set(), rows=8)
    path.write_text('{"prompt": "y"}\n')
    with pytest.raises(InputError, match="answers 'b'"):
        find_lines(open_source(str(path), {}), {"b"}, rows=8)


@pytest.mark.parametrize("name", ["in.jsonl.gz", "absent.jsonl", "wrong.parquet", "nowhere://a/in.jsonl"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "wrong.parquet").write_text("no parquet")
    with pytest.raises(InputError):
        find_lines(open_source(name if "://" in name else str(tmp_path / name), {}), set(), rows=8)


@settings(max_examples=30)
@given(st.data())
def test_a_run_killed_at_any_byte_is_gone_on_with(data: st.DataObject) -> None:
    replies = [
        Reply(number=n, custom_id=f"é{n}", status=200, body={}) if n % 3 else no_request(n, None, "no JSON")
        for n in range(1, 8)
    ]
    lines = [reply.line() for reply in replies]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.jsonl"
        path.write_bytes(whole[:cut])
        file = answer_file(str(path), {}, unfinished=Path(folder), resume=True)
        done = len(file.answered)
        assert file.answered == {reply.custom_id or reply.number for reply in replies[:done]}
        with file:
            file.append(lines[done:])
        assert path.read_bytes() == whole


def test_answers_are_not_written_over_and_other_files_are_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"some": "thing"}\n')
    with pytest.raises(InputError, match="exists"):
        answer_file(str(path), {}, unfinished=tmp_path, resume=False)
    with pytest.raises(InputError, match=r"line 1 .* is no answer"):
        answer_file(str(path), {}, unfinished=tmp_path, resume=True)
    with pytest.raises(InputError, match="no folder"):
        answer_file(str(tmp_path / "absent" / "out.jsonl"), {}, unfinished=tmp_path, resume=False)


@given(st.binary(min_size=1, max_size=40).filter(lambda text: b"\n" not in text))
def test_a_last_line_of_another_file_is_not_cut_off(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.jsonl"
        path.write_bytes(b'{"prompt": "' + text)
        with pytest.raises(InputError, match=r"line 1 .* is no answer"):
            answer_file(str(path), {}, unfinished=Path(folder), resume=True)
        assert path.read_bytes() == b'{"prompt": "' + text


def test_what_cannot_be_written_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no file"):
        answer_file(str(tmp_path), {}, unfinished=tmp_path, resume=True)
    with pytest.raises(InputError, match="cannot be reached"):
        answer_file("nowhere://bucket/out.jsonl", {}, unfinished=tmp_path, resume=False)
    with (
        pytest.raises(InputError, match="cannot be written"),
        answer_file("/proc/out.jsonl", {}, unfinished=tmp_path, resume=False),
    ):
        pass


def test_answers_that_a_store_refuses_are_kept(tmp_path: Path) -> None:
    line = Reply(number=1, custom_id="a", status=200, body={}).line()
    with (
        pytest.raises(UnavailableError, match=r"the answers are in .*--resume"),
        AnswerFile(uri=f"file://{tmp_path}", local=tmp_path / "kept.jsonl") as file,
    ):
        file.append([line])
    assert (tmp_path / "kept.jsonl").read_bytes() == line


@pytest.mark.slow
def test_an_object_store_gets_the_whole_file_or_none(
    s3_bucket: S3Bucket, s3_options: dict[str, str], tmp_path: Path
) -> None:
    uri, line = f"{s3_bucket.uri}/out.jsonl", Reply(number=1, custom_id="a", status=200, body={}).line()
    more = Reply(number=2, custom_id="b", status=200, body={}).line()
    with pytest.raises(RuntimeError), answer_file(uri, s3_options, unfinished=tmp_path, resume=False) as file:  # noqa: PT012
        file.append([line])
        raise RuntimeError
    system, path = located(uri, s3_options)
    assert not system.get_file_info(path).is_file
    with pytest.raises(InputError, match="unfinished"):
        answer_file(uri, s3_options, unfinished=tmp_path, resume=False)
    with answer_file(uri, s3_options, unfinished=tmp_path, resume=True) as file:
        assert file.answered == {"a"}
        file.append([more])
    assert system.open_input_stream(path).read() == line + more
    assert list(tmp_path.iterdir()) == []
    assert answer_file(uri, s3_options, unfinished=tmp_path, resume=True).answered == {"a", "b"}

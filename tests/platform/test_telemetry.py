"""Logs come out as JSON lines with their context; metrics read as Prometheus expects."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from rolecall.platform.telemetry import LogLevel, Metrics, configure_logging, get_logger, log_context, stopwatch


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def captured(level: LogLevel = "info") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(level, stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_json_object_with_its_keys_and_a_utc_time() -> None:
    stream = captured()
    get_logger("rolecall.test").info("step finished", step="embed", rows=3)
    (record,) = lines(stream)
    assert {k: record[k] for k in ("event", "step", "rows", "level", "logger")} == {
        "event": "step finished",
        "step": "embed",
        "rows": 3,
        "level": "info",
        "logger": "rolecall.test",
    }
    assert datetime.fromisoformat(record["time"]).utcoffset() == timedelta(0)


def test_context_reaches_every_record_inside_and_none_outside() -> None:
    stream = captured()
    with log_context(request_id="r-1"):
        get_logger("a").info("inside")
        logging.getLogger("somebody.else").warning("theirs %d", 7)
    get_logger("a").info("outside")
    inside, theirs, outside = lines(stream)
    assert inside["request_id"] == theirs["request_id"] == "r-1"
    assert theirs["event"] == "theirs 7"
    assert "request_id" not in outside


def test_an_exception_keeps_its_type_message_and_frames() -> None:
    stream = captured()
    try:
        raise ValueError("broken")
    except ValueError:
        get_logger("a").exception("failed")
    (record,) = lines(stream)
    (error,) = record["exception"]
    assert (error["exc_type"], error["exc_value"]) == ("ValueError", "broken")
    assert error["frames"]


def test_a_value_json_cannot_hold_is_written_as_text() -> None:
    stream = captured()
    get_logger("a").info("odd", value={1})
    assert lines(stream)[0]["value"] == "{1}"


@pytest.mark.parametrize(("level", "count"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_the_level_decides_what_is_written(level: LogLevel, count: int) -> None:
    stream = captured(level)
    log = get_logger("a")
    log.debug("one")
    log.info("two")
    log.warning("three")
    assert len(lines(stream)) == count


def test_libraries_chatter_is_left_out_and_their_warnings_are_not() -> None:
    stream = captured("debug")
    logging.getLogger("httpx").info("GET /")
    logging.getLogger("httpx").warning("slow")
    assert [record["event"] for record in lines(stream)] == ["slow"]


def test_configuring_again_replaces_the_stream() -> None:
    first, second = captured(), captured()
    get_logger("a").info("once")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    families = text_string_to_metric_families(body.decode())
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def test_counts_add_up() -> None:
    metrics = Metrics()
    metrics.request("/v1/search", 200, 0.02)
    metrics.request("/v1/search", 200, 0.04)
    metrics.stage("recall", 0.01, 1000)
    metrics.events("accepted", 5)
    metrics.release_refused()
    found = samples(metrics)
    assert found["rolecall_requests_total", ("/v1/search", "200")] == 2
    assert found["rolecall_request_seconds_sum", ("/v1/search",)] == pytest.approx(0.06)
    assert found["rolecall_stage_jobs_total", ("recall",)] == 1000
    assert found["rolecall_events_total", ("accepted",)] == 5
    assert found["rolecall_release_swaps_total", ("refused",)] == 1


def test_one_release_is_served_at_a_time() -> None:
    metrics = Metrics()
    metrics.release("old")
    metrics.release("new")
    found = samples(metrics)
    assert found["rolecall_release_info", ("new",)] == 1
    assert ("rolecall_release_info", ("old",)) not in found


def test_two_metrics_in_one_process_do_not_share_counts() -> None:
    one, other = Metrics(), Metrics()
    one.events("refused", 1)
    assert ("rolecall_events_total", ("refused",)) not in samples(other)


def test_a_stopwatch_reads_the_time_of_its_block_also_when_it_fails() -> None:
    times = iter([10.0, 12.5])
    with pytest.raises(KeyError), stopwatch(lambda: next(times)) as watch:
        raise KeyError
    assert watch.seconds == 2.5

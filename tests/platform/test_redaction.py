"""Nothing personal in a log record, whoever writes it and however."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from rolecall.platform.errors import InputError
from rolecall.platform.redaction import REDACTED, note_personal, personal_scope, redacted
from rolecall.platform.telemetry import configure_logging, get_logger

CANARY = "cänary-7'x"
RESUME = 'Wrote "poems"\nfor 12 years'


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("debug", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def clean(stream: io.StringIO) -> str:
    text = stream.getvalue()
    assert text
    for trace in (CANARY, "nary-7", "poems", "c-17"):
        assert trace not in text
    return text


def test_a_key_that_names_something_personal_loses_its_value(stream: io.StringIO) -> None:
    nested = {"resume_text": RESUME, "jobs": 3}
    get_logger("a").info("ranked", candidate_id=CANARY, nested=nested, rows=[{"skills": RESUME}])
    assert '"jobs": 3' in clean(stream)


def test_what_was_noted_is_gone_from_messages_of_any_library_and_from_tracebacks(stream: io.StringIO) -> None:
    with personal_scope():
        note_personal(CANARY, RESUME, None, "")
        logging.getLogger("somebody.else").warning("cannot score %s with %r", CANARY, RESUME)
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            logging.getLogger("b").error("failed", exc_info=error)
    assert REDACTED in clean(stream)


def test_local_variables_of_a_traceback_are_not_written(stream: io.StringIO) -> None:
    def score(person: str) -> None:
        raise ValueError("cannot score")

    try:
        score(CANARY)
    except ValueError:
        get_logger("a").exception("failed")
    assert "cannot score" in clean(stream)


@pytest.mark.parametrize(
    "text",
    [
        "event with candidate_id = 'c-17' refused",
        '{"candidate_id": "c-17", "kind": "view"}',
        "RecommendationRequest(candidate_id='c-17', limit=10)",
        "input should be a string [type=string_type, input_value='c-17', input_type=str]",
        "profile={'resume_text': 'c-17'} limit=3",
    ],
)
def test_a_value_behind_a_personal_key_in_a_text_is_gone(text: str) -> None:
    assert "c-17" not in redacted(text)
    assert REDACTED in redacted(text)


def test_a_noted_id_is_not_cut_out_of_a_longer_word() -> None:
    with personal_scope():
        note_personal("c-1")
        assert redacted("c-1 and c-17 and abc-1") == f"{REDACTED} and c-17 and abc-1"


def test_outside_its_scope_nothing_is_remembered() -> None:
    with personal_scope():
        note_personal("c-17")
    assert redacted("see c-17") == "see c-17"


def test_an_error_of_ours_that_quotes_an_event_names_nobody(stream: io.StringIO) -> None:
    try:
        raise InputError("event with candidate_id = 'c-17'", "text of 1 to 1000 characters")
    except InputError as error:
        logging.getLogger("a").error("refused", exc_info=error)
    assert "refused" in clean(stream)

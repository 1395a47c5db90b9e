"""The line of every answer, which is written by hand, against the one that the logger would write."""

import json
import logging
from typing import Any

import pytest

from service import logs
from service.logs import REQUEST, RequestLines, log_request
from service.settings import LogSettings

TRACE = "0af7651916cd43dd8448eb211c80319c"


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def without_time(line: dict[str, Any]) -> dict[str, Any]:
    assert len(line["time"]) == len("2026-01-01T00:00:00.000000Z")
    return {name: value for name, value in line.items() if name != "time"}


@pytest.mark.parametrize("worker", [None, 3])
def test_the_quick_line_says_what_the_loggers_says(capsys: pytest.CaptureFixture[str], worker: int | None) -> None:
    logs.configure(LogSettings(), worker)
    token = REQUEST.set(("the-id", TRACE))
    try:
        log_request("/users/{user_id}", "POST", 200, 1.25)
        logs.log.info("request", route="/users/{user_id}", method="POST", status=200, ms=1.25)
    finally:
        REQUEST.reset(token)
    quick, usual = map(without_time, lines(capsys))
    assert quick == usual
    assert (quick["request_id"], quick["trace_id"], quick.get("worker")) == ("the-id", TRACE, worker)


def test_lines_outside_of_requests_name_none(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings())
    logs.log.info("started")
    assert "request_id" not in lines(capsys)[0]


def test_failures_are_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings())
    log_request("/score", "POST", 503, 1.0)
    assert [line["level"] for line in lines(capsys)] == ["warning"]


@pytest.mark.parametrize("settings", [LogSettings(level="warning"), LogSettings(level="error")])
def test_the_level_is_kept(capsys: pytest.CaptureFixture[str], settings: LogSettings) -> None:
    logs.configure(settings)
    log_request("/score", "POST", 200, 1.0)
    assert capsys.readouterr().out == ""


def test_people_get_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="console"))
    log_request("/score", "POST", 200, 1.0)
    assert "route=/score" in capsys.readouterr().out


def test_a_log_that_cannot_be_written_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _text: str) -> None:
            raise OSError("no space left")

    logs.configure(LogSettings())
    handler: Any = logging.StreamHandler(Full())
    RequestLines(handler, None).write("/score", "POST", 200, 1.0)

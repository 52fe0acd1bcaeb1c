"""The log is JSON, and quotes nothing that an error may hold."""

from __future__ import annotations

import json
import logging
import logging.config

import pytest

from softcam.serving.telemetry import JsonFormatter, Telemetry, configure_logs, tell


def format_last(caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    return json.loads(JsonFormatter().format(caplog.records[-1]))


def test_a_line_has_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "softcam.serving"):
        tell("request", status=200, route="/v1/explain")
    line = format_last(caplog)
    assert (line["event"], line["level"], line["status"], line["route"]) == ("request", "info", 200, "/v1/explain")
    assert str(line["time"]).endswith("+00:00")


def test_of_an_error_its_kind_and_place_are_told(caplog: pytest.LogCaptureFixture) -> None:
    try:
        int("MARKED^PATIENT")
    except ValueError as error:
        tell("failed", level=logging.ERROR, error=error)
    line = format_last(caplog)
    assert (line["level"], line["error"]) == ("error", "ValueError")
    assert str(line["at"]).startswith(__name__)
    assert "MARKED" not in json.dumps(line)


@pytest.mark.parametrize(("verbose", "level"), [(True, "INFO"), (False, "WARNING")])
def test_the_configuration_is_one(verbose: bool, level: str) -> None:
    values = configure_logs(verbose=verbose)
    assert values["loggers"]["softcam"]["level"] == level
    assert values["loggers"]["uvicorn.access"]["handlers"] == []
    logging.config.DictConfigurator(values)


def test_services_count_for_themselves() -> None:
    first, second = Telemetry(), Telemetry()
    first.requests.labels("/", "200").inc()
    assert b'route="/"' in first.expose()[0]
    assert b'route="/"' not in second.expose()[0]

"""Alarms for the operator."""

import pytest

from routing.upstream.alarms import Alarms


def test_each_cause_of_a_model_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    alarms = Alarms()
    for at_s in (5.0, 6.0, 64.9, 65.0, 70.0):
        alarms.report("model_missing", "gpt-9", status=404, now_s=at_s)
    alarms.report("account_refused", "gpt-9", status=401, now_s=70.0)
    alarms.report("model_missing", "gpt-8", status=404, now_s=70.0)
    logged = [(record.message, record.__dict__["model"]) for record in caplog.records]
    assert logged == [
        ("upstream.model_missing", "gpt-9"),
        ("upstream.model_missing", "gpt-9"),
        ("upstream.account_refused", "gpt-9"),
        ("upstream.model_missing", "gpt-8"),
    ]

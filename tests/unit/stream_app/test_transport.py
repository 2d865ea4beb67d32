"""The transport is written for a Faust of a known inside; another one is refused by name."""

from __future__ import annotations

import faust
import pytest
from faust.types import TP

from stream_app import transport
from stream_app.errors import TransportMismatch
from stream_app.transport import check_faust


def test_the_installed_faust_is_one_the_transport_is_written_for():
    check_faust()


def test_another_release_is_refused(monkeypatch):
    monkeypatch.setattr(faust, "__version__", "0.16.1")
    with pytest.raises(
        TransportMismatch, match=r"faust-streaming 0\.16\.1 is installed; install .*>=0\.15\.0,<0\.16\.0"
    ):
        check_faust()


def test_a_method_that_changed_inside_is_named(monkeypatch):
    def getmany(self, timeout, fresh):
        """As a later release might have it."""

    monkeypatch.setattr(transport.driver.Consumer, "getmany", getmany)
    with pytest.raises(TransportMismatch, match=r"Consumer\.getmany .* takes \('self', 'timeout', 'fresh'\), expected"):
        check_faust()


def test_a_method_that_is_gone_is_named(monkeypatch):
    monkeypatch.setitem(transport._CONTRACT, "no_such_method", ("self",))
    with pytest.raises(TransportMismatch, match=r"Consumer\.no_such_method .* takes None"):
        check_faust()


def test_partitions_take_turns_chunk_by_chunk():
    a, b = TP("t", 0), TP("t", 1)
    runs = transport._take_turns({a: [1, 2, 3, 4, 5], b: [6]}, size=2)
    assert runs == [(a, [1, 2]), (b, [6]), (a, [3, 4]), (a, [5])]

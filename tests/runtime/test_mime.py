"""Mime bundles of anybody's objects, made fit for travel."""

from __future__ import annotations

import base64
import datetime
from typing import Any

import numpy as np
import pytest

from jupyter_train.runtime import mime
from jupyter_train.runtime.mime import portable


def test_bytes_become_base64_and_json_stays_json() -> None:
    kept, about, left_out = portable(
        {"image/png": b"\x89PNG", "application/json": {"a": (1, np.float32(2)), "b": np.arange(2)}},
        {"image/png": {"width": np.int64(3)}},
    )
    assert kept == {
        "image/png": base64.b64encode(b"\x89PNG").decode(),
        "application/json": {"a": [1, 2.0], "b": [0, 1]},
    }
    assert about == {"image/png": {"width": 3}}
    assert left_out == []


def test_dates_are_text() -> None:
    kept, _, _ = portable({"application/json": [datetime.date(2026, 11, 22)]}, None)
    assert kept == {"application/json": ["2026-11-22"]}


def endless() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize("value", [object(), {1, 2}, endless(), {"a": object()}])
def test_what_json_cannot_carry_costs_its_mime_type_only(value: Any) -> None:
    kept, _, left_out = portable({"application/x": value, "text/plain": "words"}, {"m": value})
    assert (kept, left_out) == ({"text/plain": "words"}, ["application/x"])


def test_a_widget_is_shown_in_words() -> None:
    kept, _, left_out = portable(
        {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider()"}, {}
    )
    assert kept == {"text/plain": "IntSlider()"}
    assert left_out == ["application/vnd.jupyter.widget-view+json"]


def test_what_is_too_large_for_a_page_is_left_out_but_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mime, "MAX_CHARACTERS", 100)
    kept, _, left_out = portable({"text/plain": "x" * 50, "text/html": "y" * 60, "text/latex": "z"}, {})
    assert set(kept) == {"text/plain", "text/latex"}
    assert left_out == ["text/html"]

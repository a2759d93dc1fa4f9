"""Between ranks and scheduler: in order, at most twenty times a second, never more on the way than the window."""

from __future__ import annotations

import asyncio
from typing import Any

from jupyter_train.runtime.relay import INTERVAL_S, WINDOW_BYTES, Relay


def test_what_is_not_acknowledged_fills_the_relay_and_what_is_makes_room() -> None:
    async def scene() -> None:
        sent: list[dict[str, Any]] = []
        told: list[str] = []
        relay = Relay(sent.append, run_id="r", attempt=1)
        half = bytes(WINDOW_BYTES // 2)
        relay.add([half], urgent=True)
        assert not relay.is_full
        relay.add([half])
        assert relay.is_full
        relay.when_room(lambda: told.append("room"))
        assert [message["size"] for message in sent] == [
            len(half)
        ] * 2  # full: there is no company to wait for
        assert told == []
        relay.acknowledged(len(half))
        assert not relay.is_full
        assert told == ["room"]
        relay.acknowledged(len(half))
        assert told == ["room"]

    asyncio.run(scene())


def test_who_waits_for_room_and_fills_it_lets_the_others_wait_on() -> None:
    async def scene() -> None:
        relay = Relay(lambda message: None, run_id="r", attempt=1)
        told: list[str] = []

        def first() -> None:
            told.append("first")
            relay.add([bytes(WINDOW_BYTES)])

        relay.add([bytes(WINDOW_BYTES)])
        relay.when_room(first)
        relay.when_room(lambda: told.append("second"))
        relay.acknowledged(WINDOW_BYTES)
        assert told == ["first"]
        relay.acknowledged(WINDOW_BYTES)
        assert told == ["first", "second"]

    asyncio.run(scene())


def test_what_was_acknowledged_is_let_go_of_though_dask_keeps_the_message() -> None:
    async def scene() -> None:
        sent: list[dict[str, Any]] = []
        relay = Relay(sent.append, run_id="r", attempt=1)
        relay.add([b"one"], urgent=True)
        relay.add([b"two"], urgent=True)
        relay.acknowledged(sent[0]["size"])
        assert [list(message["events"]) for message in sent] == [[], [b"two"]]

    asyncio.run(scene())


def test_small_events_wait_for_company() -> None:
    async def scene() -> None:
        sent: list[dict[str, Any]] = []
        relay = Relay(sent.append, run_id="r", attempt=1)
        relay.add([b"a"])
        relay.add([b"b"])
        relay.add([b"c"])
        assert [message["events"] for message in sent] == [[b"a"]]
        await asyncio.sleep(2 * INTERVAL_S)
        assert [message["events"] for message in sent] == [[b"a"], [b"b", b"c"]]

    asyncio.run(scene())

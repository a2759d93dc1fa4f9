"""Agents are told in order, and only while the journal has room."""

from __future__ import annotations

import asyncio
from typing import Any

from jupyter_train.control.acknowledge import LOOK_AGAIN_S, Acknowledgements


def test_agents_are_told_once_there_is_room_and_in_order() -> None:
    async def scene() -> None:
        told: list[tuple[str, int]] = []
        room = [True]
        acknowledgements = Acknowledgements(
            lambda worker, message: told.append((worker, message["size"])), lambda: room[0]
        )

        def add(worker: str, size: int) -> None:
            acknowledgements.add(worker, run_id="r", attempt=1, size=size)

        add("a", 1)
        assert told == [("a", 1)]
        room[0] = False
        add("b", 2)
        add("a", 3)
        await asyncio.sleep(3 * LOOK_AGAIN_S)
        assert told == [("a", 1)]
        room[0] = True
        add("b", 4)
        await asyncio.sleep(3 * LOOK_AGAIN_S)
        assert told == [("a", 1), ("b", 2), ("a", 3), ("b", 4)]

    asyncio.run(scene())


def test_a_worker_that_has_left_keeps_nobody_from_being_told() -> None:
    async def scene() -> None:
        told: list[str] = []

        def send(worker: str, message: dict[str, Any]) -> None:
            if worker == "gone":
                raise KeyError(worker)
            told.append(worker)

        acknowledgements = Acknowledgements(send, lambda: True)
        for worker in ("gone", "here"):
            acknowledgements.add(worker, run_id="r", attempt=1, size=1)
        assert told == ["here"]

    asyncio.run(scene())

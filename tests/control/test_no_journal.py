"""A scheduler on whose disk no journal can be made."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from distributed import Scheduler
from distributed.protocol.pickle import dumps

from jupyter_train.control import controller
from jupyter_train.control.controller import Controller
from jupyter_train.errors import StoreError


def full(path: Path) -> None:
    raise sqlite3.OperationalError("database or disk is full")


@pytest.mark.cluster
def test_says_where_and_what_to_do_and_may_be_asked_again(home: Path) -> None:
    async def register(scheduler: Scheduler) -> None:
        await scheduler.register_scheduler_plugin(dumps(Controller()), idempotent=True)

    async def main() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard_address=":0") as scheduler:
            (home / "journals").write_text("in the way")
            with pytest.raises(
                StoreError, match=r"cannot keep the history of .*File exists\. Make room there"
            ):
                await register(scheduler)
            assert "train_hello" not in scheduler.handlers
            (home / "journals").unlink()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(controller, "JournalWriter", full)
                with pytest.raises(StoreError, match=r"journals on .*disk is full\. Make room there"):
                    await register(scheduler)
            await register(scheduler)
            assert "train_hello" in scheduler.handlers

    asyncio.run(asyncio.wait_for(main(), 60))

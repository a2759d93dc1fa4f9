"""Lines between the supervisor and its processes."""

from __future__ import annotations

import asyncio

from jupyter_train.cluster.channel import channel_pair


def test_messages_arrive_whole_and_in_order() -> None:
    here, there = channel_pair()
    assert there.receive() == []
    here.send(op="scale", n=2)
    here.send(op="stop")
    assert there.receive() == [{"op": "scale", "n": 2}, {"op": "stop"}]
    here.sock.send(b'{"op": "la')
    assert there.receive() == []
    here.sock.send(b'te"}\n')
    assert there.receive() == [{"op": "late"}]
    here.close()
    there.close()


def test_the_end_of_the_other_side_is_told() -> None:
    here, there = channel_pair()
    here.close()
    assert there.receive() is None
    assert not there.send(op="status")
    there.close()


def test_a_frozen_reader_does_not_freeze_the_writer() -> None:
    here, there = channel_pair()
    for _ in range(10_000):
        if not here.send(op="status", text="x" * 1000):
            break
    else:
        raise AssertionError("it took ten thousand messages that nobody reads")
    here.close()
    there.close()


def test_an_event_loop_can_wait_for_messages() -> None:
    here, there = channel_pair()

    async def both() -> tuple[object, object]:
        waiting = asyncio.create_task(there.messages())
        await asyncio.sleep(0)
        here.send(op="end")
        first = await waiting
        here.close()
        return first, await there.messages()

    assert asyncio.run(both()) == ([{"op": "end"}], None)
    there.close()

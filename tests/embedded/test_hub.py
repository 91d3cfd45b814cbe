"""A socket's queue: bounded, and what gives way when it is full."""

from __future__ import annotations

from bridged.embedded import hub
from bridged.embedded.hub import Hub, Outbox


async def drained(outbox: Outbox, count: int) -> list[str | bytes | None]:
    return [await outbox.get() for _ in range(count)]


async def test_messages_leave_in_order() -> None:
    outbox = Outbox()
    outbox.put("a", droppable=False)
    outbox.put(b"b", droppable=True)
    assert await drained(outbox, 2) == ["a", b"b"]


async def test_when_it_is_full_the_oldest_droppable_message_makes_room() -> None:
    outbox = Outbox()
    outbox.put("first", droppable=False)
    for number in range(hub.MAX_MESSAGES):
        outbox.put(str(number), droppable=True)
    outbox.put("end", droppable=False)
    messages = await drained(outbox, hub.MAX_MESSAGES)
    assert [messages[0], messages[1], messages[-1]] == ["first", "2", "end"]
    assert not outbox.overflowed


async def test_a_flood_of_bytes_is_bounded_too() -> None:
    outbox = Outbox()
    picture = bytes(hub.MAX_BYTES // 2)
    for _ in range(5):
        outbox.put(picture, droppable=True)
    outbox.put("end", droppable=False)
    assert await drained(outbox, 2) == [picture, "end"]


async def test_a_message_that_must_not_be_lost_and_does_not_fit_closes_the_socket() -> None:
    outbox = Outbox()
    for number in range(hub.MAX_MESSAGES):
        outbox.put(str(number), droppable=False)
    outbox.put("progress", droppable=True)
    assert not outbox.overflowed
    outbox.put("end", droppable=False)
    assert outbox.overflowed
    assert await outbox.get() is None


async def test_a_socket_that_ends_does_not_take_its_successor_with_it() -> None:
    sockets = Hub()
    old, new = sockets.open("me"), sockets.open("me")
    sockets.close("me", old)
    assert sockets.is_heard("me")
    sockets.send("executing", {}, "me")
    assert await new.get() == '{"type": "executing", "data": {}}'
    sockets.close("me", new)
    assert not sockets.is_heard("me")


async def test_events_of_a_prompt_without_a_client_go_to_everybody() -> None:
    sockets = Hub()
    boxes = [sockets.open(name) for name in "ab"]
    sockets.send("status", {}, None)
    assert [await box.get() for box in boxes] == ['{"type": "status", "data": {}}'] * 2

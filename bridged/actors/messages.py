"""What clients are told, and what waits to be sent to one connection."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec
import trio

from bridged.model import JobEvent, JobState

MAX_WAITING = 1024
"""messages that wait for one socket. Progress is coalesced per job, so this is about as many jobs ending at once; a
client that does not take a terminal message within it is disconnected."""


class Message(msgspec.Struct, frozen=True):
    """One WebSocket message, or the newest state for /execution-info."""

    status: str
    detail: str
    job_id: str | None = None
    resume: str | None = None
    """what a client may come back with: proof that it is the one that went away"""


CLOSED = Message("closed", "Execution is done")
WORTH_TELLING = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.LOST})
"""ends that a client that comes back is told of: that its going away ended a job, it knows"""


class Mailbox:
    """What waits to be sent to one socket: progress coalesces to the newest per job, the rest keeps its order."""

    def __init__(self) -> None:
        self._messages: OrderedDict[tuple[str, str | None, int], Message] = OrderedDict()
        self._serial = 0
        self._news = trio.Event()
        self._urgent = trio.Event()
        self.overflowed = False

    def put(self, message: Message) -> None:
        if message.status == "progress":
            key = ("progress", message.job_id, 0)
            self._messages.pop(key, None)
        else:
            self._serial += 1
            key = (message.status, message.job_id, self._serial)
            self._urgent.set()
        if len(self._messages) >= MAX_WAITING:
            self.overflowed = True
            self._urgent.set()
        else:
            self._messages[key] = message
        self._news.set()

    def wake(self) -> None:
        """Something other than progress is to be looked at."""
        self._news.set()
        self._urgent.set()

    async def wait(self) -> None:
        await self._news.wait()

    async def wait_urgent(self) -> None:
        """Until there is something that cannot wait: anything but progress."""
        await self._urgent.wait()

    def take(self) -> list[Message]:
        self._news, self._urgent = trio.Event(), trio.Event()
        messages = list(self._messages.values())
        self._messages.clear()
        return messages


def told(event: JobEvent) -> Iterator[Message]:
    """What a client is told of a job's change, in the wire contract's words."""
    match event.state:
        case JobState.RUNNING:
            yield Message("progress", f"{event.percent:.2f}%", event.job_id)
        case JobState.SUCCEEDED:
            yield Message("progress", "100.00%", event.job_id)
        case JobState.FAILED | JobState.CANCELLED | JobState.EXPIRED | JobState.LOST:
            yield Message("error", event.failure.message if event.failure else event.state.value, event.job_id)

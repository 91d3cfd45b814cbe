"""Everything one ComfyUI is asked, as calls: the hot path over httptools, the rest over httpx, events over wsproto.

Control calls (queue, history, interrupt, probe) have connections of their own, so they never wait behind a transfer.
No Origin or Sec-Fetch-Site header is ever sent: 2026 versions refuse cross-site requests.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec
import trio

from bridged.comfy import patch, protocol, tls
from bridged.comfy.eventsocket import EventSocket
from bridged.comfy.hotpath import HotPath, Response
from bridged.comfy.protocol import PromptAnswer, PromptRefusal, QueueView, RemoteFile, UploadAnswer
from bridged.errors import AttemptFailed, BackendUnavailable, PausedByOwner
from bridged.model import Fault, Graph, PatchInfo

CONTROL_TIMEOUT = 5.0
"""seconds; a ComfyUI answers these in milliseconds, even while it runs a prompt"""

LISTING_TIMEOUT = 10.0
"""seconds; a folder with many thousand files on a slow disk takes some"""

OPEN_TIMEOUT = 10.0
"""seconds for a connection of the event socket, and for the handshakes on it"""

MAX_ANSWER = 64_000_000
"""bytes of the answer to a control call; node definitions are the largest, several MB in practice"""

MAX_IN_FLIGHT = 6
"""control calls at once, below httpx's pool of 10: cancelled requests can leak a slot (httpcore #1093)"""


PATCH = "/bridged/v1/"
"""routes of a patched ComfyUI, and the only ones that get its token"""

NOBODYS_PROMPT = "00000000-0000-4000-8000-000000000000"


class ComfyClient:
    """One backend. Owned by its actor; `aclose` when done. Neither `url` nor `token` appears in an error's text."""

    def __init__(
        self, url: str, headers: dict[str, str], client_id: str, ssl_context: ssl.SSLContext, token: str = ""
    ) -> None:
        self.url = url.rstrip("/")
        self.client_id = client_id
        self._headers = headers
        self._token = token
        self._ssl = ssl_context
        self._address = _address_in_text(self.url)
        self._hot = HotPath(self.url, headers, ssl_context)
        self._control_limit = trio.CapacityLimiter(MAX_IN_FLIGHT)
        self._http = self._new_http()

    def _new_http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url,
            headers={**self._headers, "Accept-Encoding": "identity"},
            verify=self._ssl,
            follow_redirects=False,  # a PC does not choose whom we speak to
            timeout=httpx.Timeout(CONTROL_TIMEOUT, pool=CONTROL_TIMEOUT),
            limits=httpx.Limits(max_connections=10, max_keepalive_connections=4),
            trust_env=False,
        )

    def without_address(self, text: str) -> str:
        """A text of the backend's own making, in which its address may stand, for people who must not learn it."""
        return self._address.sub("its address", text)

    async def use(self, ssl_context: ssl.SSLContext) -> None:
        """From now on connections are made with this context."""
        if ssl_context is not self._ssl:
            old, self._ssl = self._http, ssl_context
            self._http = self._new_http()
            await self._hot.use(ssl_context)
            await old.aclose()

    async def aclose(self) -> None:
        await self._hot.aclose()
        await self._http.aclose()

    # -- the hot path ------------------------------------------------------------------------------------------------

    async def post_prompt(self, prompt_id: str, graph: Graph, lease: float = 0.0) -> PromptAnswer:
        """Queues a prompt under our id. `lease` (s): a patched ComfyUI is not to go on with it once it has not heard
        from us for so long.

        Raises AttemptFailed (the backend refused the graph; `fault` says whose fault), PausedByOwner (it did not take
        it), BackendUnavailable (no usable answer: it may have been accepted all the same, look it up).
        """
        prompt: dict[str, Any] = {"prompt": graph, "prompt_id": prompt_id, "client_id": self.client_id}
        if lease:
            prompt["extra_data"] = {"bridged": {"lease": lease}}
        body = msgspec.json.encode(prompt)
        status, answer = await self._hot.post_json("/prompt", body)
        if status == 200:
            try:
                return msgspec.json.decode(answer, type=PromptAnswer)
            except protocol.UNREADABLE:
                raise BackendUnavailable("its answer to a prompt is not ComfyUI's") from None
        if status == 400:
            try:
                refusal = msgspec.json.decode(answer, type=PromptRefusal)
            except protocol.UNREADABLE:
                refusal = PromptRefusal("it refuses the prompt and does not say why")
            # A value that this PC does not offer (a model it lacks) another PC may: that is the host's fault.
            host_specific = {"value_not_in_list", "missing_node_type", "custom_validation_failed"}
            host = bool(refusal.kinds() & host_specific)
            raise AttemptFailed(refusal.text(), Fault.HOST if host else Fault.WORKFLOW)
        if status == 503 and patch.says_paused(answer):
            raise PausedByOwner("its owner has paused it")
        message = f"it answers a prompt with HTTP status {status}"
        if status >= 500:  # something in front of it, or something in it after the prompt was queued
            raise BackendUnavailable(message, answered=True)
        raise AttemptFailed(message, Fault.HOST)

    def view(self, file: RemoteFile) -> AbstractAsyncContextManager[tuple[Response, AsyncIterator[bytes]]]:
        """A file's original bytes, as they arrive."""
        query = urlencode({"filename": file.filename, "subfolder": file.subfolder, "type": file.type})
        return self._hot.get(f"/view?{query}")

    # -- control -----------------------------------------------------------------------------------------------------

    async def queue(self) -> QueueView:
        return protocol.parse_queue(await self._get("/queue"))

    async def history(self, prompt_id: str) -> protocol.HistoryEntry | None:
        return protocol.parse_history(await self._get(f"/history/{prompt_id}"), prompt_id)

    async def object_info(self) -> bytes:
        return await self._get("/object_info", timeout=60.0)

    async def listing(self, path: str) -> bytes | None:
        """What it answers to a GET of some list; None where it has no such thing."""
        response = await self._request("GET", path, timeout=LISTING_TIMEOUT)
        if response.status_code in (400, 404):  # ComfyUI says 400 of an internal folder that it does not know
            return None
        if path.startswith(PATCH) and (response.status_code in (401, 403) or response.status_code >= 500):
            return None  # no token of ours, or not its own; or a patch that is broken: the PC can be used all the same
        if response.status_code != 200:
            raise BackendUnavailable(f"it answers a listing with HTTP status {response.status_code}")
        return response.content

    async def has_atomic_cancel(self) -> bool:
        """Whether this version has `POST /api/jobs/{id}/cancel` (2026 versions): asked of a prompt nobody has."""
        return (await self._request("POST", f"/api/jobs/{NOBODYS_PROMPT}/cancel")).status_code == 200

    async def cancel_atomically(self, prompt_id: str) -> bool:
        """Dequeues or interrupts exactly that prompt. False where the backend does not know the call or the prompt.

        2026 versions answer 200 `{"cancelled": bool}`, false for unknown or finished ids; stock 0.3.64 has 404 or 405.
        """
        response = await self._request("POST", f"/api/jobs/{prompt_id}/cancel")
        return response.status_code == 200 and b"true" in response.content

    # -- the patch (docs/patch-api.md) -------------------------------------------------------------------------------

    async def patch_info(self) -> tuple[int, PatchInfo | None]:
        """The HTTP status, and what a patched ComfyUI says of itself; None where that is not 200: it has no patch
        (404), or refuses the token (401, 403). Raises BackendUnavailable; a 5xx says nothing of the patch."""
        response = await self._request("GET", f"{PATCH}info")
        if response.status_code >= 500:
            raise BackendUnavailable(f"it answers its patch's info with HTTP status {response.status_code}")
        return response.status_code, patch.parse_info(response.content) if response.status_code == 200 else None

    async def cancel_by_patch(self, prompt_id: str) -> patch.Cancelled | None:
        """Dequeues or interrupts exactly that prompt, under the queue's lock. None where there is no patch (any more).
        Raises BackendUnavailable."""
        response = await self._request("POST", f"{PATCH}jobs/{prompt_id}/cancel")
        return patch.parse_cancel(response.content) if response.status_code == 200 else None

    async def renew_lease(self, seconds: float) -> bool:
        """Our prompts there may go on for so long from now. False where there is no patch (any more). Raises
        BackendUnavailable; a 5xx says nothing of the patch."""
        response = await self._request_json("POST", f"{PATCH}lease", {"client_id": self.client_id, "seconds": seconds})
        if response.status_code >= 500:
            raise BackendUnavailable(f"it answers with HTTP status {response.status_code}")
        if response.status_code != 200:
            return False
        patch.parse_lease(response.content)
        return True

    async def delete_queued(self, prompt_ids: Sequence[str]) -> None:
        await self._post("/queue", {"delete": list(prompt_ids)})

    async def delete_history(self, prompt_ids: Sequence[str]) -> None:
        await self._post("/history", {"delete": list(prompt_ids)})

    async def interrupt(self, prompt_id: str) -> None:
        """Interrupts that prompt if it is the running one; never called without an id."""
        await self._post("/interrupt", {"prompt_id": prompt_id})

    async def free(self) -> None:
        """Unloads models and frees memory after the current job; harmless while one runs."""
        await self._post("/free", {"unload_models": True, "free_memory": True})

    async def upload(self, body: AsyncGenerator[bytes, None], content_type: str, length: int) -> UploadAnswer:
        """Sends an encoded multipart body to /upload/image. Raises AttemptFailed (refused), BackendUnavailable."""
        headers = {"Content-Type": content_type, "Content-Length": str(length)}
        async with aclosing(body):
            response = await self._request("POST", "/upload/image", _Body(body), headers, timeout=60.0)
        if response.status_code != 200:
            raise AttemptFailed(f"it refuses an input file (HTTP status {response.status_code})", Fault.HOST)
        try:
            return msgspec.json.decode(response.content, type=UploadAnswer)
        except protocol.UNREADABLE:
            raise BackendUnavailable("its answer to an upload is not ComfyUI's") from None

    async def _get(self, path: str, timeout: float = CONTROL_TIMEOUT) -> bytes:
        response = await self._request("GET", path, timeout=timeout)
        if response.status_code != 200:
            raise BackendUnavailable(f"it answers {path.split('/')[1]} with HTTP status {response.status_code}")
        return response.content

    async def _request_json(self, method: str, path: str, body: Any) -> httpx.Response:
        content = msgspec.json.encode(body)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        return await self._request(method, path, _Body(_Once(content)), headers)

    async def _post(self, path: str, body: Any) -> None:
        response = await self._request_json("POST", path, body)
        if response.status_code != 200:
            raise BackendUnavailable(f"it answers {path} with HTTP status {response.status_code}")

    async def _request(
        self,
        method: str,
        path: str,
        body: httpx.AsyncByteStream | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = CONTROL_TIMEOUT,
    ) -> httpx.Response:
        """One call with its whole answer, of at most MAX_ANSWER bytes, within 4 x `timeout` (s) in all."""
        if self._token and path.startswith(PATCH):
            headers = {**(headers or {}), "X-Bridged-Token": self._token}
        try:
            request = self._http.build_request(method, path, headers=headers, timeout=timeout)
        except httpx.InvalidURL:
            raise BackendUnavailable("there is no asking for such a path") from None
        if body is not None:
            request.stream = body
        try:
            async with self._control_limit:
                with trio.fail_after(4 * timeout):
                    response = await self._http.send(request, stream=True)
                    try:
                        return await _bounded(response)
                    finally:
                        with trio.move_on_after(1, shield=True):
                            await response.aclose()
        except httpx.PoolTimeout as error:
            old, self._http = self._http, self._new_http()
            await old.aclose()
            raise BackendUnavailable("too many control calls wait for it") from error
        except (httpx.HTTPError, trio.TooSlowError) as error:
            text = tls.trouble(error) or f"it does not answer ({type(error).__name__})"
            # What Trio and httpx say of it has the address in it; with a cause it would stand in every traceback.
            raise BackendUnavailable(text, refused=_is_refusal(error)) from None

    # -- events ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def events(self) -> AsyncIterator[EventSocket]:
        """The event socket, greeted with our feature flags; its stream is closed on exit.

        Raises BackendUnavailable: it cannot be opened.
        """
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        try:
            with trio.fail_after(OPEN_TIMEOUT):
                tcp = await trio.open_tcp_stream(host, port)
        except (OSError, trio.TooSlowError) as error:
            refused = _is_refusal(error)
            text = "it refuses connections" if refused else f"it cannot be reached ({type(error).__name__})"
            raise BackendUnavailable(text, refused=refused) from None
        _detect_dead_peer(tcp)
        stream = trio.SSLStream(tcp, self._ssl, server_hostname=host) if secure else tcp
        try:
            socket = EventSocket(stream)
            target = f"{parts.path}/ws?{urlencode({'clientId': self.client_id})}"
            try:
                with trio.fail_after(OPEN_TIMEOUT):
                    await socket.open(parts.netloc, target, self._headers, protocol.HELLO)
            except trio.TooSlowError as error:
                raise BackendUnavailable("its event socket does not open in time") from error
            yield socket
            with trio.move_on_after(1):
                await socket.close()
        finally:
            # Closed fully before anyone reconnects: a late close of this socket would deregister the next one of the
            # same client_id (ComfyUI 0.3.64).
            await trio.aclose_forcefully(stream)


def _address_in_text(url: str) -> re.Pattern[str]:
    """What a backend's address looks like in a text: its host, with or without scheme and port. A host of one word
    ("studio") may be an ordinary word: only with one of them, then."""
    host = re.escape(urlsplit(url).hostname or "")
    scheme, port = r"(?:https?|wss?)://", r":[0-9]{1,5}"
    named = rf"(?<![\w.-])\[?{host}\]?(?![\w-])"
    if "." in host or ":" in host:
        return re.compile(f"(?:{scheme})?{named}(?:{port})?", re.IGNORECASE)
    return re.compile(f"{scheme}{named}(?:{port})?|{named}{port}", re.IGNORECASE)


def _is_refusal(error: BaseException) -> bool:
    """Whether every address of it refused the connection: its PC answers, and nothing listens there."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_refusal, error.exceptions))
    cause = error.__cause__ or error.__context__
    return isinstance(error, ConnectionRefusedError) or (cause is not None and _is_refusal(cause))


class _Body(httpx.AsyncByteStream):
    """A request's body. httpx's own ones are asynchronous generators, which a cancelled request leaves for the garbage
    collector to complain of."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks


class _Once:
    """An asynchronous iterator of one block."""

    def __init__(self, block: bytes) -> None:
        self._blocks = [block]

    def __aiter__(self) -> _Once:
        return self

    async def __anext__(self) -> bytes:
        if not self._blocks:
            raise StopAsyncIteration
        return self._blocks.pop()


async def _bounded(response: httpx.Response) -> httpx.Response:
    """The response with its content read. Raises BackendUnavailable: too large, or encoded although we forbade it (a
    few kB of gzip can be a GB)."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise BackendUnavailable("it encodes an answer that must not be encoded")
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > MAX_ANSWER:
            raise BackendUnavailable(f"it gives an answer of more than {MAX_ANSWER // 1_000_000} MB")
    return httpx.Response(response.status_code, content=bytes(content))


def _detect_dead_peer(stream: trio.SocketStream) -> None:
    """Lets the kernel notice a PC that vanished without a word, also while nothing is sent (keepalive)."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)

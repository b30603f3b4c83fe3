"""Many small files from the network: politely, in bounded memory, and each ends as a photo or with a reason.

Addresses stream in and results stream out: besides a window of addresses, only the files on their way are in memory.
Each host has its own queue, its own limit of connections and its own pauses, so that a slow or angry one does not
hold up the others. A redirect queues at the host that it names. What became of a file is handed to the caller, who
keeps it (:mod:`geoloc_core.corpora.journal`): nothing here remembers more than the present.

Whatever an address, a redirect or an answer says costs its own file and no other; :mod:`geoloc_core.web` says which
are followed and which are not.
"""

import asyncio
import heapq
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from pydantic import Field

from geoloc_core import web
from geoloc_core.corpora.answers import PLACEHOLDER, Address, Unpacker, photo_fault, sum_fault
from geoloc_core.plugins import Strict
from geoloc_core.web import MAX_REDIRECTS, MAX_WAIT_S, Fault, Gone, InsideError, Trail, parsed

if TYPE_CHECKING:
    import httpx

BREATH = 256
"""Addresses after which those on their way get their turn, however many settle without a request."""


class Limits(Strict):
    """How many requests to make, and when to give up."""

    connections: int = Field(64, ge=1, le=1024)
    """Files on their way at a time."""
    per_host: int = Field(8, ge=1, le=256)
    """Of these, from one host."""
    tries: int = Field(5, ge=1, le=20)
    """Requests for one file, as long as what goes wrong may pass."""
    wait_s: float = Field(1.0, ge=0)
    """Seconds before the second try; twice that before the third, and so on."""
    max_wait_s: float = Field(MAX_WAIT_S, ge=0)
    """The longest pause; a host that asks for a longer one (``Retry-After``) is left alone for this run."""
    silence_s: float = Field(30.0, gt=0)
    """Seconds without a byte after which a connection counts as lost."""
    total_s: float = Field(120.0, gt=0)
    """Seconds for one file, however it trickles."""
    max_redirects: int = Field(MAX_REDIRECTS, ge=0, le=20)
    """Of one request."""
    max_bytes: int = Field(32 * 2**20, gt=0)
    """A larger file is refused as soon as that is known."""
    patience: int = Field(100, ge=1)
    """Failures in a row after which a host is not asked again in this run."""
    window: int = Field(4096, ge=1)
    """Addresses known ahead, over all hosts."""
    user_agent: str = Field("geoloc", pattern=r"^[!-~]([ -~]*[!-~])?$")
    """What servers are told; a name and a contact are good manners."""


Check = Callable[[Address, bytes, str], Fault | None]
"""Says of an address, the bytes and their Content-Type what is wrong with them."""
Settle = Callable[[Address, bytes | Fault], None]
"""Is told once per address, in the order in which they are settled, never from two threads at once."""


def download(
    addresses: Iterable[Address],
    settle: Settle,
    limits: Limits | None = None,
    check: Check | None = None,
    admit: Callable[[Address], None] | None = None,
) -> Counter[str]:
    """Bring files.

    Args:
        addresses: What to bring; read as needed, and never more than ``limits.window`` ahead.
        settle: Told what became of each; may raise to stop everything.
        limits: How hard to ask.
        check: What a good answer is; :func:`photo_fault` unless given.
        admit: Called before every request, retries included; may raise to stop everything.

    Returns:
        How many files were brought (``ok``), and how many are gone by reason.

    Raises:
        Exception: What ``settle``, ``admit`` or the addresses raised.
    """
    crawl = _Crawl(settle, limits or Limits(), check or photo_fault, admit)
    try:
        asyncio.run(crawl.run(addresses))
    except BaseExceptionGroup as several:
        raise _first(several) from None
    return crawl.counts


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


@dataclass
class _Job:
    """An address on its way: where it is asked for now, and how often that failed."""

    address: Address
    trail: Trail
    tries: int = 0


@dataclass(frozen=True)
class _Reply:
    """What a request led to: the bytes and their type, a fault and how long the server asks to wait, or a redirect."""

    result: bytes | Fault | str
    kind: str = ""
    wait_s: float | None = None


@dataclass
class _Host:
    """One host's queue and mood.

    Attributes:
        name: With its scheme and port.
        fresh: Jobs that may go as soon as there is a connection.
        later: Jobs to try again, by the time from which they may.
        free: Connections without work.
        active: Jobs that hold or await a connection.
        open_at: Time before which nothing is asked.
        strikes: Failures since the last answer.
        inside: Whether it is of this machine or its network, as far as is known.
        closed: Why the host is not asked again.
        timer: Wakes the queue when the next job may go.
    """

    name: str
    fresh: deque[_Job] = field(default_factory=deque)
    later: list[tuple[float, int, _Job]] = field(default_factory=list)
    free: "list[httpx.AsyncHTTPTransport]" = field(default_factory=list)
    active: int = 0
    open_at: float = 0.0
    strikes: int = 0
    inside: bool = False
    closed: Fault | None = None
    timer: asyncio.TimerHandle | None = None

    def take(self, now: float) -> _Job | None:
        """The next job that may go now."""
        if now < self.open_at:
            return None
        if self.later and self.later[0][0] <= now:
            return heapq.heappop(self.later)[2]
        return self.fresh.popleft() if self.fresh else None

    def next_at(self) -> float | None:
        """When there will be one."""
        if self.fresh:
            return self.open_at
        return max(self.open_at, self.later[0][0]) if self.later else None


class _Crawl:
    """One run: see :func:`download`."""

    def __init__(self, settle: Settle, limits: Limits, check: Check, admit: Callable[[Address], None] | None) -> None:
        self.settle, self.limits, self.check, self.admit = settle, limits, check, admit
        self.counts: Counter[str] = Counter()
        self.hosts: dict[str, _Host] = {}
        self.pending = 0
        self.order = count()
        self.client = web.Client(limits.silence_s, limits.user_agent)

    async def run(self, addresses: Iterable[Address]) -> None:
        """Until every address is settled."""
        self.room, self.slots = asyncio.Event(), asyncio.Semaphore(self.limits.connections)
        try:
            async with asyncio.TaskGroup() as self.tasks:
                for number, address in enumerate(addresses):
                    await self._until_pending_below(self.limits.window)
                    if number % BREATH == 0:
                        await asyncio.sleep(0)
                    self.pending += 1
                    url = parsed(address.url)
                    if isinstance(url, Fault):
                        self._settle(address, url)
                    else:
                        self._enter(_Job(address, Trail(url)))
                await self._until_pending_below(1)
        finally:
            for host in self.hosts.values():
                if host.timer:
                    host.timer.cancel()
                for transport in host.free:
                    await transport.aclose()

    async def _until_pending_below(self, number: int) -> None:
        while self.pending >= number:
            self.room.clear()
            await self.room.wait()

    def _settle(self, address: Address, result: bytes | Fault) -> None:
        self.counts["ok" if isinstance(result, bytes) else result.reason.value] += 1
        self.settle(address, result)
        self.pending -= 1
        self.room.set()

    def _enter(self, job: _Job) -> None:
        """Queue a job at its host."""
        if PLACEHOLDER in job.trail.url.path:
            return self._settle(job.address, Fault(Gone.PLACEHOLDER, f"redirected to a {PLACEHOLDER} picture"))
        name = _host_of(job.trail.url)
        host = self.hosts.setdefault(name, _Host(name))
        if host.closed:
            return self._settle(job.address, host.closed)
        host.fresh.append(job)
        return self._wake(host)

    def _wake(self, host: _Host) -> None:
        """Start what may go now, and see that the rest is not forgotten."""
        now = time.monotonic()
        while host.active < self.limits.per_host and (job := host.take(now)):
            host.active += 1
            self.tasks.create_task(self._serve(host, job))
        if host.timer:
            host.timer.cancel()
            host.timer = None
        at = host.next_at()
        if at is not None and host.active < self.limits.per_host:
            host.timer = asyncio.get_running_loop().call_later(max(0.0, at - now), self._wake, host)

    async def _serve(self, host: _Host, job: _Job) -> None:
        """Ask once, and see to what comes of it."""
        async with self.slots:
            if host.closed:
                self._settle(job.address, host.closed)
            elif time.monotonic() < host.open_at:
                host.fresh.appendleft(job)
            else:
                self._see(host, job, await self._ask(host, job))
        host.active -= 1
        self._wake(host)
        await self._tidy(host)

    def _see(self, host: _Host, job: _Job, reply: _Reply) -> None:
        result = reply.result
        if isinstance(result, str):
            host.strikes = 0
            fault = job.trail.follow(result, self.limits.max_redirects)
            return self._settle(job.address, fault) if fault else self._enter(job)
        if isinstance(result, bytes) or not result.transient:
            host.strikes = 0
        if isinstance(result, bytes) or not (result.transient or result.reason is Gone.CHECKSUM):
            return self._settle(job.address, result)
        job.tries += 1
        host.strikes += result.transient
        pause = web.pause_s(job.tries, self.limits.wait_s, self.limits.max_wait_s)
        now = time.monotonic()
        if reply.wait_s is not None and reply.wait_s > self.limits.max_wait_s:
            self._close(
                host,
                Fault(result.reason, f"{host.name} asks to wait {reply.wait_s:,.0f} s; not asked again in this run"),
            )
        elif host.strikes >= self.limits.patience:
            said = f"{host.name} failed {host.strikes} times in a row, {result.detail}; not asked again in this run"
            self._close(host, Fault(result.reason, said))
        elif reply.wait_s is not None or result.reason is Gone.BUSY:
            # The host is busy, not the file: nobody asks it before the time is over.
            host.open_at = max(host.open_at, now + (pause if reply.wait_s is None else reply.wait_s))
        if job.tries >= self.limits.tries or host.closed:
            return self._settle(job.address, host.closed or result)
        return heapq.heappush(host.later, (now + pause, next(self.order), job))

    def _close(self, host: _Host, fault: Fault) -> None:
        """Leave a host alone, and say so for everything that waits for it."""
        host.closed = fault
        for job in (*host.fresh, *(job for _, _, job in host.later)):
            self._settle(job.address, fault)
        host.fresh.clear()
        host.later.clear()

    async def _tidy(self, host: _Host) -> None:
        """Let the connections of a host without work go; forget it, unless there is something to remember."""
        if host.active or host.fresh or host.later:
            return
        free, host.free = host.free, []
        if not (host.closed or host.strikes or time.monotonic() < host.open_at):
            self.hosts.pop(host.name, None)
        for transport in free:
            await transport.aclose()

    async def _ask(self, host: _Host, job: _Job) -> _Reply:
        import httpx

        if self.admit:
            self.admit(job.address)
        url = job.trail.url
        transport = host.free.pop() if host.free else self.client.transport(url, httpx.AsyncHTTPTransport)
        try:
            async with asyncio.timeout(self.limits.total_s):
                reply = await self._exchange(transport, host, job.trail)
        except TimeoutError:
            fault = Fault(Gone.TIMEOUT, f"not finished within {self.limits.total_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, InsideError, ValueError, zlib.error) as error:
            fault = self.client.fault(error)
        else:
            host.free.append(transport)
            return self._checked(job.address, reply)
        await transport.aclose()
        return _Reply(fault)

    def _checked(self, address: Address, reply: _Reply) -> _Reply:
        if not isinstance(reply.result, bytes):
            return reply
        fault = sum_fault(address, reply.result) or self.check(address, reply.result, reply.kind)
        return _Reply(fault) if fault else reply

    async def _exchange(self, transport: "httpx.AsyncHTTPTransport", host: _Host, trail: Trail) -> _Reply:
        direct = self.client.proxy(trail.url) is None

        def meet(ip: str) -> None:
            # Of the host, as a connection that is used again says no more where it leads.
            host.inside |= web.is_private(ip)
            trail.meet(host.inside)

        async def watch(event: str, info: dict[str, Any]) -> None:
            if direct and event == web.CONNECTED:
                try:
                    meet(web.peer(info))
                except InsideError:
                    await info["return_value"].aclose()
                    raise

        meet(web.host_of(trail.url))
        response = await transport.handle_async_request(self.client.request(trail.url, watch))
        try:
            location = web.location_of(response)
            if location:
                return _Reply(location)
            fault = web.status_fault(response.status_code)
            if fault:
                wait = response.headers.get("Retry-After") if fault.transient else None
                return _Reply(fault, wait_s=web.retry_after_s(wait))
            data = await self._body(response)
        finally:
            await response.aclose()
        return _Reply(data, response.headers.get("Content-Type", "").lower())

    async def _body(self, response: "httpx.Response") -> bytes | Fault:
        """The whole body, or that it is too large: said by its announced length, or by what came."""
        limit, parts, size = self.limits.max_bytes, [], 0
        announced = web.announced(response)
        if announced is not None and announced > limit:
            return Fault(Gone.TOO_LARGE, f"{announced:,} bytes; at most {limit:,}")
        unpacker = Unpacker(response.headers.get("Content-Encoding", ""))
        async for packed in response.aiter_raw():
            part = unpacker.unpack(packed, limit - size + 1)
            size += len(part)
            if size > limit:
                return Fault(Gone.TOO_LARGE, f"more than {limit:,} bytes")
            parts.append(part)
        return b"".join(parts) if unpacker.whole else Fault(Gone.BROKEN_OFF, "the compressed data is incomplete")


def _host_of(url: "httpx.URL") -> str:
    """Host and port, and the scheme: a connection without TLS is none for an address with it."""
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    return f"{url.scheme}://{web.host_of(url)}:{port}"

"""How the web is asked, by everything here that asks it: one client, one judgement of addresses and redirects.

What servers say comes from others. What is kept of it in a :class:`Fault` is bounded, and never the address, which may
hold a secret.

A host of the public Internet cannot redirect into this machine or its network: only what is asked for at an address
there is brought from there. The address that is judged is the one that was connected to, so that a name which leads
elsewhere each time it is looked up gains nothing. Where a proxy resolves names, addresses in digits alone are judged.

``httpx`` is used through its transports, one per connection. Its client would write every address to the log, keys
included, and the time that its pool takes for a request grows with the connections: 64 of them halve and halve again
the files per second.
"""

import ipaddress
import re
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from geoloc_core.errors import in_a_line

if TYPE_CHECKING:
    import ssl

    import httpx

    T = TypeVar("T", httpx.HTTPTransport, httpx.AsyncHTTPTransport)

MAX_REDIRECTS = 5
MAX_WAIT_S = 300.0
"""The longest pause before another try."""
BUSY = frozenset({408, 425, 429})
"""Statuses below 500 after which the same request may succeed."""
HOST = re.compile(r"(?=.{1,254}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f:.]*:[0-9a-f:.]*(%.+)?")
"""A name as resolvers take it, or an address of IPv6."""
EMBEDDING = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""Addresses of IPv6 that end in one of IPv4: NAT64's (RFC 6052) and those once called IPv4-compatible."""
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
"""What a network translates for itself alone (RFC 8215)."""
CONNECTED = "connection.connect_tcp.complete"
"""The event of a transport that says where it has connected to."""


class Gone(StrEnum):
    """Why there is no photo at an address."""

    NOT_FOUND = "not_found"
    """404."""
    REMOVED = "removed"
    """410."""
    FORBIDDEN = "forbidden"
    """401, 403 or 451."""
    REFUSED = "refused"
    """Another status that is no photo."""
    PLACEHOLDER = "placeholder"
    """The picture that a site shows in place of a photo it no longer has."""
    NOT_A_PHOTO = "not_a_photo"
    """A web page, or bytes of no known picture format."""
    EMPTY = "empty"
    """Zero bytes."""
    TOO_LARGE = "too_large"
    """More bytes than allowed."""
    CHECKSUM = "checksum"
    """Other bytes than the published checksum says, at every try."""
    REDIRECTS = "redirects"
    """Redirected too often, or in a circle."""
    BAD_ADDRESS = "bad_address"
    """No address of the web."""
    PRIVATE = "private"
    """Redirected from a public host to one of this machine or its own network."""
    TIMEOUT = "timeout"
    """No answer, or not its end, in time."""
    UNREACHABLE = "unreachable"
    """No connection, or one that was reset."""
    BROKEN_OFF = "broken_off"
    """The answer ended before its announced length, or was no HTTP."""
    SERVER_ERROR = "server_error"
    """A 5xx status."""
    BUSY = "busy"
    """408, 425 or 429."""


TRANSIENT = frozenset({Gone.TIMEOUT, Gone.UNREACHABLE, Gone.BROKEN_OFF, Gone.SERVER_ERROR, Gone.BUSY})
"""Reasons that may pass: worth another try, now and in a later run."""


@dataclass(frozen=True)
class Fault:
    """Why a file could not be had.

    Attributes:
        reason: In a word.
        detail: In a line, without the address.
    """

    reason: Gone
    detail: str

    @property
    def transient(self) -> bool:
        """Whether it may pass."""
        return self.reason in TRANSIENT


class InsideError(Exception):
    """A redirect of a public host has led to this machine or its network."""


def parsed(url: str) -> "httpx.URL | Fault":
    """An address of the web, taken apart, or that it is none: the first to look at any text that may be one."""
    import httpx

    try:
        address = httpx.URL(url)
    # The latter of lone surrogates and of numbers without end.
    except (httpx.InvalidURL, ValueError):
        address = httpx.URL()
    is_host = HOST.fullmatch(address.raw_host.decode("ascii"))
    if address.scheme in ("http", "https") and is_host and (address.port is None or 0 < address.port < 2**16):
        return address
    return Fault(Gone.BAD_ADDRESS, "expected http:// or https://, a host and perhaps a port")


def is_private(host: str) -> bool:
    """Whether an IP address is not one of the public Internet, such as those of this machine; of names, never."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    judged = _inner(ip) or ip if isinstance(ip, ipaddress.IPv6Address) else ip
    return not judged.is_global or judged.is_multicast or ip in LOCAL_NAT64


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The address of IPv4 that one of IPv6 leads to; None where it leads to none."""
    if address.teredo:
        return address.teredo[1]
    if any(address in network for network in EMBEDDING):
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour


@dataclass
class Trail:
    """The way of a request through redirects.

    Attributes:
        url: Where it is asked for now.
        hops: Redirects so far.
        inside: Whether the first host is of this machine or its network, as far as is known.
    """

    url: "httpx.URL" = field(repr=False)
    hops: int = 0
    inside: bool = False

    def meet(self, private: bool) -> None:
        """Judge the host that is asked now.

        Args:
            private: Whether it is of this machine or its network.

        Raises:
            InsideError: It is, and the first one was not.
        """
        if self.hops == 0:
            self.inside |= private
        elif private and not self.inside:
            raise InsideError

    def follow(self, location: str, most: int) -> Fault | None:
        """Go where a redirect leads, or say why not.

        Args:
            location: The ``Location`` of the answer.
            most: Redirects that are followed.
        """
        import httpx

        self.hops += 1
        if self.hops > most:
            return Fault(Gone.REDIRECTS, f"{self.hops} redirects")
        try:
            target = parsed(str(self.url.join(location)))
        except (httpx.InvalidURL, ValueError):
            target = parsed("")
        if isinstance(target, Fault):
            return Fault(target.reason, f"redirected; {target.detail}")
        if self.url.scheme == "https" and target.scheme != "https":
            return Fault(Gone.BAD_ADDRESS, "redirected from https to http")
        self.url = target
        return None


class Client:
    """What requests and connections have in common.

    Args:
        silence_s: Seconds without a byte after which a connection counts as lost.
        user_agent: What servers are told.
    """

    def __init__(self, silence_s: float, user_agent: str = "geoloc") -> None:
        self._silence_s, self._user_agent = silence_s, user_agent
        self._proxies = urllib.request.getproxies()

    def proxy(self, url: "httpx.URL") -> str | None:
        """The proxy that an address is asked through."""
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        return None if proxy and urllib.request.proxy_bypass(url.netloc.decode("ascii")) else proxy

    def transport(self, url: "httpx.URL", kind: "type[T]") -> "T":
        """A connection for an address, ``httpx.HTTPTransport`` or ``httpx.AsyncHTTPTransport``."""
        import httpx

        proxy = self.proxy(url)
        verify: Any = self._tls if url.scheme == "https" or (proxy or "").startswith("https") else False
        return kind(verify=verify, proxy=proxy, limits=httpx.Limits(max_connections=1))

    def request(self, url: "httpx.URL", trace: Callable[..., Any], headers: Mapping[str, str] = {}) -> "httpx.Request":
        """A request for an address.

        Args:
            url: The address.
            trace: Told of the connection's events: see :data:`CONNECTED`.
            headers: Beside the usual ones.
        """
        import httpx

        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self._silence_s)
        usual = {
            # Named here, since httpx would read the host, and read only those that IDNA 2008 allows.
            "Host": url.netloc.decode("ascii"),
            "User-Agent": self._user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        return httpx.Request("GET", url, headers={**usual, **headers}, extensions={"timeout": timeouts, "trace": trace})

    def fault(self, error: Exception) -> Fault:
        """Why a request of a transport, or of the reading of its answer, has failed.

        Raises:
            Exception: That very error, if it is none of these.
        """
        import httpx

        match error:
            case InsideError():
                return Fault(Gone.PRIVATE, "redirected from a public host to this machine or its network")
            case httpx.TimeoutException():
                return Fault(Gone.TIMEOUT, f"{self._silence_s:g} s without any data")
            case httpx.RemoteProtocolError() | zlib.error():
                return Fault(Gone.BROKEN_OFF, in_a_line(error, 200))
            # The last are of names that the resolver and TLS cannot spell.
            case httpx.InvalidURL() | httpx.UnsupportedProtocol() | httpx.LocalProtocolError() | ValueError():
                return Fault(Gone.BAD_ADDRESS, type(error).__name__)
            case httpx.RequestError():
                return Fault(Gone.UNREACHABLE, in_a_line(error, 200))
        raise error

    @cached_property
    def _tls(self) -> "ssl.SSLContext":
        import httpx

        # Once: to read the authorities' certificates takes longer than to bring a photo.
        return httpx.create_ssl_context()


def peer(info: Mapping[str, Any]) -> str:
    """The IP address that a connection leads to, given what a transport says of :data:`CONNECTED`."""
    return str((info["return_value"].get_extra_info("server_addr") or ("",))[0])


def host_of(url: "httpx.URL") -> str:
    """The host that an address names."""
    return url.raw_host.decode("ascii")


def location_of(response: "httpx.Response") -> str | None:
    """Where an answer redirects to; None where it does not."""
    location: str | None = response.headers.get("Location")
    return location if 300 <= response.status_code < 400 and location else None


def announced(response: "httpx.Response") -> int | None:
    """How many bytes an answer announces; None where it says no number."""
    said = response.headers.get("Content-Length", "")
    return int(said[:18]) if said.isascii() and said.isdigit() else None


def pause_s(tries: int, wait_s: float, most_s: float = MAX_WAIT_S) -> float:
    """Seconds to wait after so many tries that failed: ``wait_s`` after the first, twice that after the next."""
    return min(wait_s * 2.0 ** (tries - 1), most_s)


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait by a ``Retry-After`` header (RFC 9110, 10.2.3): a number of seconds or a date; else None."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def status_fault(status: int) -> Fault | None:
    """Why a status is no photo's; None where it is 200."""
    if status == 200:
        return None
    known = {404: Gone.NOT_FOUND, 410: Gone.REMOVED, **dict.fromkeys((401, 403, 451), Gone.FORBIDDEN)}
    known |= dict.fromkeys(BUSY, Gone.BUSY)
    reason = Gone.SERVER_ERROR if status >= 500 else known.get(status, Gone.REFUSED)
    return Fault(reason, f"status {status}")

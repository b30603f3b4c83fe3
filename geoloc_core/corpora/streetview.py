"""Panoramas from Google's Street View Static API, and from nothing else.

First the metadata of every place, which is free of charge and says which panorama is nearest; then the pictures, per
panorama once for each heading. The key comes from the environment and goes nowhere but into the requests: whatever an
answer repeats of it is taken out before anything is looked at (:func:`_bring`). What the
pictures may be used for is a matter of Google's terms, which the user has to read.

Source: https://developers.google.com/maps/documentation/streetview (request-streetview, metadata, digital-signature).
"""

import base64
import hashlib
import hmac
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes, urlencode, urlsplit

from pydantic import Field, field_validator

from geoloc_core.corpora.answers import Address, photo_fault
from geoloc_core.corpora.downloads import Check, Limits, Settle, download
from geoloc_core.corpora.journal import Journal
from geoloc_core.corpora.places import Place
from geoloc_core.errors import UserError
from geoloc_core.files import files_under, remove, replacing
from geoloc_core.plugins import Strict
from geoloc_core.progress import say, track
from geoloc_core.tables import CsvWriter
from geoloc_core.web import TRANSIENT, Fault, Gone, parsed

API = "https://maps.googleapis.com/maps/api/streetview"
KEY, SECRET = "GOOGLE_MAPS_API_KEY", "GOOGLE_MAPS_SIGNING_SECRET"
COLUMNS = ("path", "pano_id", "latitude", "longitude", "heading", "date", "copyright")
SAFE = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""What an id may be made of, as it becomes the name of a folder."""
STATUS = re.compile(r"[A-Z_]{1,40}")
ENCODED = 3
"""Times that a key in a picture may have been percent-encoded."""
METADATA_BYTES = 2**20
"""More than any true answer has."""
MAX_FAILED_SHARE = 0.01
"""Temporary errors, as a share of all requests, up to which a step counts as done."""

Heading = Annotated[float, Field(ge=0, lt=360)]


class View(Strict):
    """How a panorama is looked at, and what that may cost."""

    headings: tuple[Heading, ...] = Field((0, 90, 180, 270), min_length=1)
    """Degrees clockwise from north; a picture each."""
    width: int = Field(640, ge=16, le=640)
    """Pixels."""
    height: int = Field(640, ge=16, le=640)
    """Pixels."""
    fov: float = Field(90, gt=0, le=120)
    """Horizontal field of view in degrees."""
    pitch: float = Field(0, ge=-90, le=90)
    """Degrees above the horizon."""
    radius_m: int = Field(50, ge=1)
    """How far from a place its panorama may be."""
    outdoor: bool = True
    """Leave out panoramas inside buildings."""
    price_per_1000: float = Field(7.0, ge=0)
    """What a thousand pictures cost by the user's contract."""
    budget: float = Field(ge=0)
    """What may be spent, in the currency of the price."""
    base: str = API
    """Address of the API."""

    @field_validator("base")
    @classmethod
    def _is_an_address(cls, base: str) -> str:
        if isinstance(found := parsed(base), Fault):
            raise ValueError(found.detail)
        return base


@dataclass(frozen=True)
class Credentials:
    """The key, and the secret that signs with it; never shown."""

    key: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "Credentials":
        """From the environment.

        Raises:
            UserError: The key is missing, or the key or the secret is malformed.
        """
        key, secret = environment.get(KEY, "").strip(), environment.get(SECRET, "").strip()
        if not key:
            raise UserError(f"{KEY}: not set; expected a key of the Street View Static API in the environment")
        if not re.fullmatch(r"[A-Za-z0-9_.~-]+", key):
            raise UserError(f"{KEY}: not a key; expected letters, digits, - and _ as Google shows them")
        try:
            base64.b64decode(secret, altchars=b"-_", validate=True)
        except ValueError:
            raise UserError(f"{SECRET}: not url-safe base64; expected the secret as Google shows it") from None
        return cls(key, secret or None)

    def address(self, unsigned: str) -> str:
        """The address of a request, with the key, and signed where there is a secret."""
        url = f"{unsigned}&{urlencode({'key': self.key})}"
        return f"{url}&signature={signature(url, self.secret)}" if self.secret else url

    @cached_property
    def _spellings(self) -> re.Pattern[str]:
        return re.compile("|".join(map(_spellings, filter(None, (self.key, self.secret)))), re.IGNORECASE)

    def hidden(self, text: str) -> str:
        """Untrusted text without the key and the secret, in whatever case and however percent-encoded."""
        return self._spellings.sub("…", text)

    def clean_json(self, data: bytes) -> bytes | None:
        """JSON of others without the key and the secret; None where it is none."""
        try:
            # Written anew, so that no escape of JSON hides a letter.
            return self.hidden(json.dumps(json.loads(data))).encode()
        except (ValueError, RecursionError):
            return None

    def clean_picture(self, data: bytes) -> bytes | None:
        """A picture of others; None where it holds the key or the secret."""
        # As the pattern finds them, which takes longer than to bring a picture.
        secrets = [secret.lower().encode() for secret in (self.key, self.secret) if secret]
        text = data
        for _ in range(ENCODED):
            if any(secret in text.lower() for secret in secrets):
                return None
            text = unquote_to_bytes(text)
        return data


def _spellings(secret: str) -> str:
    """The pattern of a secret, each character as it is or percent-encoded, once or again and again."""
    return "".join(f"(?:{re.escape(character)}|%(?:25)*{ord(character):02x})" for character in secret)


def signature(url: str, secret: str) -> str:
    """The digital signature of a request: HMAC-SHA1 of its path and query, in url-safe base64."""
    parts = urlsplit(url)
    signed = f"{parts.path}?{parts.query}".encode()
    mac = hmac.new(base64.urlsafe_b64decode(secret), signed, hashlib.sha1)
    return base64.urlsafe_b64encode(mac.digest()).decode()


@dataclass(frozen=True)
class Panorama:
    """What the metadata say of a panorama: degrees, WGS 84, and the month it was taken (``2019-07``)."""

    pano_id: str
    latitude: float
    longitude: float
    date: str
    copyright: str

    @property
    def is_sound(self) -> bool:
        """Whether it may be kept: its id names a folder, its place is one."""
        at = (self.latitude, self.longitude)
        texts = (self.pano_id, self.date, self.copyright)
        return (
            all(isinstance(text, str) for text in texts) and bool(SAFE.fullmatch(texts[0])) and all(map(_is_number, at))
        )


def estimate(places: int, view: View) -> str:
    """What a plan asks for and costs at most, in a line."""
    pictures = places * len(view.headings)
    return (
        f"{places:,} places: {places:,} requests for metadata, free of charge, then at most {pictures:,} pictures "
        f"({len(view.headings)} per panorama), at most {cost(pictures, view):,.2f} at {view.price_per_1000:g} per "
        f"1,000; the budget is {view.budget:,.2f}"
    )


def cost(pictures: int, view: View) -> float:
    """What pictures cost, in the currency of the price."""
    return pictures / 1000 * view.price_per_1000


def crawl(
    places: Sequence[Place], view: View, credentials: Credentials, limits: Limits, folder: Path, partial: Path
) -> dict[str, Any]:
    """Download the panoramas near places; a run that was stopped continues where it stopped.

    Args:
        places: Where to ask.
        view: How to look, and for how much.
        credentials: The key.
        limits: How hard to ask.
        folder: Where ``images/<pano_id>/<heading>.jpg`` and ``panoramas.csv`` go.
        partial: Where the journals of an unfinished run are kept.

    Returns:
        Figures: places, panoramas, pictures, what is missing by reason, and the cost.

    Raises:
        UserError: The key is refused, the quota is used up, or the budget does not suffice; what came is kept.
    """
    found, without = panoramas(places, view, credentials, limits, partial / "metadata.jsonl")
    if not found:
        said = ", ".join(f"{reason} {count:,}" for reason, count in sorted(without.items()))
        raise UserError(f"no panorama at any of {len(places):,} places ({said}); expected some: raise radius_m")
    asked, missing = _pictures(found, view, credentials, limits, folder, partial / "images.jsonl")
    _write_table(found, view, folder / "panoramas.csv")
    return {
        "places": len(places),
        "places_without": dict(sorted(without.items())),
        "panoramas": len(found),
        "pictures": len(found) * len(view.headings) - missing.total(),
        "pictures_missing": dict(sorted(missing.items())),
        "requests_charged_at_most": asked,
        "cost_at_most": round(cost(asked, view), 2),
    }


def panoramas(
    places: Sequence[Place], view: View, credentials: Credentials, limits: Limits, path: Path
) -> tuple[list[Panorama], Counter[str]]:
    """The panoramas near places, each once, in the order of the places; and why the other places have none."""
    queries = dict.fromkeys(_query(place, view) for place in places)
    with Journal(path, _is_place) as journal:
        # By what was asked, so that a plan that grows asks for the new places only.
        records = {record.pop("query"): record for record in journal.records}

        def settle(address: Address, result: bytes | Fault) -> None:
            records[address.key] = _metadata(result)
            journal.add({"query": address.key, **records[address.key]})

        wanted = [query for query in queries if _is_open(records.get(query))]
        addresses = (Address(query, credentials.address(f"{view.base}/metadata?{query}")) for query in wanted)
        small = limits.model_copy(update={"max_bytes": min(limits.max_bytes, METADATA_BYTES)})
        asking = track(addresses, "metadata", len(wanted), "places")
        _bring(asking, credentials.clean_json, settle, small, credentials, _metadata_fault)
    found: dict[str, Panorama] = {}
    without: Counter[str] = Counter(same_place=len(places) - len(queries)) if len(queries) < len(places) else Counter()
    for query in queries:
        record = records[query]
        if "reason" in record:
            without[record["reason"]] += 1
        elif record["pano_id"] in found:
            without["same_panorama"] += 1
        else:
            found[record["pano_id"]] = Panorama(**record)
    _check_failures(sum(without[reason] for reason in TRANSIENT), len(queries), "requests for metadata")
    return list(found.values()), without


def _query(place: Place, view: View) -> str:
    if place.pano_id is not None:
        return urlencode({"pano": place.pano_id})
    at = {"location": f"{place.latitude:.7f},{place.longitude:.7f}", "radius": view.radius_m}
    return urlencode(at | ({"source": "outdoor"} if view.outdoor else {}))


def _is_open(record: dict[str, Any] | None) -> bool:
    """Whether a request is still to be made, or made again."""
    return record is None or record.get("reason") in TRANSIENT


def _check_failures(failed: int, total: int, what: str) -> None:
    if failed > MAX_FAILED_SHARE * total:
        raise UserError(
            f"{failed:,} of {total:,} {what} failed with errors that may be temporary; the others are kept: "
            "run the command again later"
        )


def _bring(
    addresses: Iterable[Address],
    clean: Callable[[bytes], bytes | None],
    settle: Settle,
    limits: Limits,
    credentials: Credentials,
    check: Check,
    admit: Callable[[Address], None] | None = None,
) -> None:
    """Ask the API, and hand on what it says only when no key is in it."""

    def checked(address: Address, data: bytes, kind: str) -> Fault | None:
        cleaned = clean(data)
        if cleaned is None:
            return Fault(Gone.REFUSED, "an answer that cannot be read, or contains the key")
        return check(address, cleaned, credentials.hidden(kind))

    def settled(address: Address, result: bytes | Fault) -> None:
        if isinstance(result, Fault):
            settle(address, replace(result, detail=credentials.hidden(result.detail)))
        elif cleaned := clean(result):
            settle(address, cleaned)

    download(addresses, settled, limits, checked, admit)


def _answer(data: bytes) -> dict[str, Any] | None:
    answer = json.loads(data)
    return answer if isinstance(answer, dict) and isinstance(answer.get("status"), str) else None


def _metadata_fault(address: Address, data: bytes, kind: str) -> Fault | None:
    answer = _answer(data)
    if answer is None:
        return Fault(Gone.REFUSED, "no metadata")
    # Both may pass within moments; a quota that is used up for the day outlasts the tries.
    passing = {"UNKNOWN_ERROR": Gone.SERVER_ERROR, "OVER_QUERY_LIMIT": Gone.BUSY}
    status = answer["status"]
    return Fault(passing[status], status) if status in passing else None


def _metadata(result: bytes | Fault) -> dict[str, Any]:
    """A record of the journal: a panorama, or the reason why there is none."""
    if isinstance(result, Fault):
        _stop(result)
        return {"reason": result.reason.value}
    answer = _answer(result)
    assert answer is not None
    if answer["status"] == "REQUEST_DENIED":
        said = " ".join(str(answer.get("error_message", "no reason given")).split())[:500]
        raise UserError(f"{KEY}: the API refuses it: {said}; expected a key for which Street View Static is enabled")
    if answer["status"] != "OK":
        return {"reason": answer["status"].lower() if STATUS.fullmatch(answer["status"]) else "odd_metadata"}
    at = answer.get("location")
    place = (at.get("lat"), at.get("lng")) if isinstance(at, dict) else (None, None)
    # What JSON can say and no file: half of a pair of surrogates.
    date, owner = (str(answer.get(key, ""))[:500].encode("utf-8", "replace").decode() for key in ("date", "copyright"))
    found = Panorama(answer.get("pano_id"), *place, date, owner)  # type: ignore[arg-type]
    return asdict(found) if found.is_sound else {"reason": "odd_metadata"}


def _is_place(record: dict[str, Any]) -> bool:
    """Whether a record is one of :func:`_metadata` and what was asked."""
    rest = {name: value for name, value in record.items() if name != "query"}
    if not isinstance(record.get("query"), str):
        return False
    if "reason" in rest:
        return set(rest) == {"reason"} and isinstance(rest["reason"], str)
    return set(rest) == set(Panorama.__dataclass_fields__) and Panorama(**rest).is_sound


def _is_request(record: dict[str, Any]) -> bool:
    """Whether a record is of a picture that was asked for, or that the API lacks."""
    texts = all(isinstance(value, str) for value in record.values())
    return texts and set(record) in ({"asked"}, {"gone", "reason"})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 180


def _stop(fault: Fault) -> None:
    """Stop everything where each further request would fare the same."""
    if fault.reason is Gone.FORBIDDEN:
        raise UserError(
            f"{KEY}: the API refuses it ({fault.detail}); expected a key with Street View Static and billing"
        )
    if fault.reason is Gone.BUSY:
        raise UserError(
            f"the API's quota is used up ({fault.detail}); what was downloaded is kept: run the command again later"
        )


def _pictures(
    found: Sequence[Panorama], view: View, credentials: Credentials, limits: Limits, folder: Path, path: Path
) -> tuple[int, Counter[str]]:
    """Bring the pictures, and say for how many requests one may be charged, and what is missing by reason."""
    missing: dict[str, Fault] = {}
    with Journal(path, _is_request) as journal:
        noted = sum("asked" in record for record in journal.records) + journal.damaged
        # A picture that is there was asked for, whatever became of the journal.
        asked = [max(noted, sum(path.startswith("images/") for path in files_under(folder)))]
        if journal.damaged:
            say(
                f"{journal.damaged:,} of them may be requests that were charged, and count as charged; pictures that "
                "the API does not have may be requested and charged again"
            )
        gone = {record["gone"]: record["reason"] for record in journal.records if "gone" in record}
        wanted = [name for name in _names(found, view) if name not in gone and not (folder / name).exists()]
        _check_budget(len(wanted), asked[0], view)

        def admit(address: Address) -> None:
            # Noted before it is asked, so that no kill makes a charge forgotten.
            if cost(asked[0] + 1, view) > view.budget + 1e-9:
                raise UserError(f"{_spent(asked[0], view)}, because some pictures were requested again; raise `budget`")
            asked[0] += 1
            journal.add({"asked": address.key})

        def settle(address: Address, result: bytes | Fault) -> None:
            if isinstance(result, Fault):
                _stop(result)
                missing[address.key] = result
                if not result.transient:
                    journal.add({"gone": address.key, "reason": result.reason.value})
                return
            with replacing(folder / address.key) as aside:
                aside.write_bytes(result)

        addresses = _picture_addresses(wanted, view, credentials)
        asking = track(addresses, "pictures", len(wanted), "pictures")
        _bring(asking, credentials.clean_picture, settle, limits, credentials, photo_fault, admit)
    _check_failures(sum(fault.transient for fault in missing.values()), len(wanted), "pictures")
    names = set(_names(found, view))
    for name in files_under(folder):
        # An earlier plan of the same run may have brought others.
        if name not in names:
            remove(folder / name)
    return asked[0], Counter(reason for name, reason in gone.items() if name in names) + Counter(
        fault.reason.value for fault in missing.values()
    )


def _check_budget(wanted: int, asked: int, view: View) -> None:
    needed = cost(asked + wanted, view)
    say(f"{wanted:,} pictures to download; {asked:,} requested before; {needed:,.2f} in total")
    if needed > view.budget + 1e-9:
        raise UserError(
            f"budget: {wanted:,} pictures would bring the cost to {needed:,.2f}; the budget is {view.budget:,.2f}: "
            "raise `budget`, or ask for fewer places or headings; no picture was requested"
        )


def _spent(asked: int, view: View) -> str:
    return f"budget: {asked:,} requests may have cost {cost(asked, view):,.2f} of {view.budget:,.2f}"


def _names(found: Iterable[Panorama], view: View) -> Iterator[str]:
    for panorama in found:
        yield from (picture_path(panorama.pano_id, heading) for heading in view.headings)


def picture_path(pano_id: str, heading: float) -> str:
    """The path of a panorama's picture at a heading in the raw folder."""
    return f"images/{pano_id}/{heading:g}.jpg"


def _picture_addresses(names: Sequence[str], view: View, credentials: Credentials) -> Iterator[Address]:
    look = {"size": f"{view.width}x{view.height}", "fov": f"{view.fov:g}", "pitch": f"{view.pitch:g}"}
    for number, name in enumerate(names):
        _, pano, file = name.split("/")
        # Without return_error_code the API answers with a grey picture where it has none.
        query = {"pano": pano, "heading": file.removesuffix(".jpg"), **look, "return_error_code": "true"}
        yield Address(name, credentials.address(f"{view.base}?{urlencode(query)}"), number)


def _write_table(found: Sequence[Panorama], view: View, path: Path) -> None:
    with replacing(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        writer = CsvWriter(stream)
        writer.writerow(COLUMNS)
        for at in found:
            for heading in view.headings:
                name = picture_path(at.pano_id, heading)
                row = (at.pano_id, at.latitude, at.longitude, f"{heading:g}", at.date, at.copyright)
                writer.writerow((name, *row))

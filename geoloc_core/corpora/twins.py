"""Byte-identical photos: one of them is kept if they agree on their place, and none if they do not.

All that is known of them is on disk (:mod:`~geoloc_core.corpora.on_disk`), so that five million take no memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from geoloc_core.corpora.on_disk import as_bytes, as_text, temporary
from geoloc_core.corpora.photo import Reason, Refusal
from geoloc_core.geo.sphere import haversine_km

SHOWN = 3
"""Twins that a refusal names."""


@dataclass(frozen=True)
class Claim:
    """Where a photo is said to have been taken.

    Attributes:
        image_id: The photo.
        latitude: Degrees; None where unknown.
        longitude: Degrees; None where unknown.
        country: Its published country if there are no coordinates; None if unknown.
    """

    image_id: str
    latitude: float | None
    longitude: float | None
    country: str | None = None

    @property
    def place(self) -> str:
        """The place in words."""
        return self.country or "unknown" if self.latitude is None else f"{self.latitude:g}, {self.longitude:g}"

    def contradicts(self, other: "Claim", km: float) -> bool:
        """Whether not both can be true; what is unknown contradicts nothing."""
        if self.latitude is None or other.latitude is None:
            return None not in (self.country, other.country) and self.country != other.country
        assert self.longitude is not None
        assert other.longitude is not None
        return bool(haversine_km(self.latitude, self.longitude, other.latitude, other.longitude) > km)


PLACE = ("image_id", "latitude", "longitude", "country")
COLUMNS = "sha256, number, row, image_id, latitude, longitude, country"
TABLE = "(sha256 BLOB, number INTEGER, row INTEGER, image_id BLOB, latitude REAL, longitude REAL, country TEXT, {})"


class Twins:
    """The photos that were met, by their bytes.

    Args:
        km: Great-circle distance beyond which two places of the same bytes contradict each other.
    """

    def __init__(self, km: float) -> None:
        self._km = km
        self._met = self._rows = 0
        self._file = temporary()
        self._file.create_function("contradict", 8, self._contradict, deterministic=True)
        self._file.execute(f"CREATE TABLE first {TABLE.format('PRIMARY KEY (sha256)')} WITHOUT ROWID")
        self._file.execute(f"CREATE TABLE again {TABLE.format('PRIMARY KEY (sha256, number)')} WITHOUT ROWID")
        self._file.execute("CREATE TABLE contested (sha256 BLOB PRIMARY KEY, twins INTEGER) WITHOUT ROWID")
        self._file.execute("BEGIN")

    def add(self, sha256: bytes, claim: Claim) -> bool:
        """Keep a photo in mind; whether its bytes are new. The new ones are rows, counted from 0."""
        cells = (as_bytes(claim.image_id), claim.latitude, claim.longitude, claim.country)
        self._met += 1
        new = "INSERT OR IGNORE INTO first VALUES (?, ?, ?, ?, ?, ?, ?)"
        if self._file.execute(new, (sha256, self._met, self._rows, *cells)).rowcount:
            self._rows += 1
            return True
        self._file.execute("INSERT INTO again VALUES (?, ?, NULL, ?, ?, ?, ?)", (sha256, self._met, *cells))
        return False

    def settle(self) -> Iterator[tuple[int | None, Refusal]]:
        """What is refused, in the order in which it was added, and the row of what had counted as one.

        That is each photo but the first of its bytes, and the first too where another's place contradicts its own.
        """
        places = ", ".join(f"{table}.{name}" for table in ("first", "again") for name in PLACE)
        self._file.execute(
            "INSERT INTO contested SELECT sha256, count(*) FROM again JOIN first USING (sha256) "  # noqa: S608
            f"GROUP BY sha256 HAVING max(contradict({places}))"
        )
        refused = self._file.execute(
            f"SELECT {COLUMNS} FROM first WHERE sha256 IN (SELECT sha256 FROM contested) "  # noqa: S608
            f"UNION ALL SELECT {COLUMNS} FROM again ORDER BY number"
        )
        for sha256, number, row, *cells in refused:
            yield row, self._refusal(sha256, number, _claim(cells))

    def _contradict(self, *cells: Any) -> bool:
        half = len(PLACE)
        return _claim(cells[:half]).contradicts(_claim(cells[half:]), self._km)

    def _refusal(self, sha256: bytes, number: int, claim: Claim) -> Refusal:
        contested = self._file.execute("SELECT twins FROM contested WHERE sha256 = ?", (sha256,)).fetchone()
        others = [_claim(cells) for met, *cells in self._same(sha256) if met != number]
        if contested is None:
            return Refusal(claim.image_id, Reason.DUPLICATE, f"the same bytes as {others[0].image_id}")
        named = ", ".join(f"{other.image_id} ({other.place})" for other in others[:SHOWN])
        more = contested[0] - min(len(others), SHOWN)
        detail = f"at {claim.place}, but the same bytes as {named}" + (f" and {more:,} more" if more else "")
        return Refusal(
            claim.image_id, Reason.CONFLICTING_PLACES, f"{detail}; expected places within {self._km:g} km of each other"
        )

    def _same(self, sha256: bytes) -> Iterator[tuple[Any, ...]]:
        """Number and claim of the first photos of those bytes."""
        columns = ", ".join(("number", *PLACE))
        for table in ("first", "again"):
            query = f"SELECT {columns} FROM {table} WHERE sha256 = ? ORDER BY number LIMIT ?"  # noqa: S608
            yield from self._file.execute(query, (sha256, SHOWN + 1))


def _claim(cells: Sequence[Any]) -> Claim:
    return Claim(as_text(cells[0]), *cells[1:])

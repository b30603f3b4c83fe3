"""A record of what was downloaded, so that a kill loses nothing and nothing is requested twice.

A list of files becomes numbered parts of :data:`SHARD` files. While a part is under way, its photos are appended to
one file in the order in which they come, and one line per settled address to a journal: first the bytes, then the
line that says where they are. When all its addresses are settled the part is sealed: a msgpack shard as MP-16
publishes them, in the order of the list, so that the same answers always make the same bytes. Sealed shards suit a
million photos better than a million files do, and what is in memory is one part's journal, never the list.
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from geoloc_core.corpora.answers import Address
from geoloc_core.corpora.on_disk import in_chunks
from geoloc_core.errors import UserError
from geoloc_core.files import replacing
from geoloc_core.progress import say
from geoloc_core.tables import CsvWriter
from geoloc_core.web import Fault, Gone

SHARD = 4096
"""Photos of a published shard."""
REASONS = frozenset(Gone)


def _any(record: dict[str, Any]) -> bool:
    return True


class Journal:
    """Records that survive a kill: a line of JSON each, in one file that only grows.

    Each record is one write. A last line that is torn, as by a full disk or a lost machine, is dropped on opening.
    Any other line that is not a record is damaged: it is moved to a file next to the journal, with a message.

    Attributes:
        records: What was there on opening.
        damaged: How many lines were not records then.
    """

    def __init__(self, path: Path, is_sound: Callable[[dict[str, Any]], bool] = _any) -> None:
        """Open a journal, or begin one.

        Args:
            path: Its file.
            is_sound: Whether an object is a record as its owner writes them.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        tail = lines.pop()
        if tail and not tail.startswith(b"{"):  # neither empty nor a torn record
            lines.append(tail)
            tail = b""
        parsed = [(line, _parsed(line, is_sound)) for line in lines]
        self.records = [record for _, record in parsed if record is not None]
        bad = [line for line, record in parsed if record is None]
        self.damaged = len(bad)
        if bad:
            _set_aside(path, bad, [line for line, record in parsed if record is not None])
        self._stream = path.open("ab", buffering=0)
        self._stream.truncate(path.stat().st_size - (0 if bad else len(tail)))

    def add(self, record: dict[str, Any]) -> None:
        """Append a record."""
        self._stream.write(json.dumps(record, ensure_ascii=True).encode() + b"\n")

    def close(self) -> None:
        """Let the file go."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parsed(line: bytes, is_sound: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and is_sound(record) else None


def _set_aside(path: Path, bad: Sequence[bytes], good: Sequence[bytes]) -> None:
    aside = path.with_name(f"{path.name}.damaged")
    with aside.open("ab") as stream:
        stream.writelines(line + b"\n" for line in bad)
    with replacing(path) as whole:
        whole.write_bytes(b"".join(line + b"\n" for line in good))
    say(f"{path}: {len(bad):,} damaged lines were moved to {aside.name}; what they recorded will be requested again")


class Part:
    """A shard under way.

    Attributes:
        number: Its number.
        addresses: Its addresses, in the order of the list.
        found: Where the bytes of each place are, or why there are none.
    """

    def __init__(self, folder: Path, number: int, addresses: Sequence[Address]) -> None:
        self.number, self.addresses = number, addresses
        self.found: dict[int, tuple[int, int] | Fault] = {}
        self._data = folder / f"{number:06d}.data"
        self._lines = folder / f"{number:06d}.jsonl"
        places = {address.place for address in addresses}
        self._journal = Journal(self._lines, lambda record: _is_settled(record) and record["place"] in places)
        self._stream = self._data.open("a+b", buffering=0)
        size = self._stream.seek(0, os.SEEK_END)
        for record in self._journal.records:
            self._recall(record, size)
        self._end = max((span[1] for span in self.found.values() if isinstance(span, tuple)), default=0)
        self._stream.truncate(self._end)

    def _recall(self, record: dict[str, Any], size: int) -> None:
        if "reason" in record:
            self.found[record["place"]] = Fault(Gone(record["reason"]), record["detail"])
        elif record["stop"] <= size:  # else the machine was lost before the bytes were on the disk
            self.found[record["place"]] = (record["start"], record["stop"])

    @property
    def missing(self) -> list[Address]:
        """What is to be requested: addresses never settled, and those with an error that may have been temporary."""
        return [address for address in self.addresses if _open(self.found.get(address.place))]

    def settle(self, address: Address, result: bytes | Fault) -> None:
        """Keep what became of an address: the bytes first, then the line that counts."""
        if isinstance(result, Fault):
            self.found[address.place] = result
            self._journal.add({"place": address.place, "reason": result.reason.value, "detail": result.detail})
            return
        span = (self._end, self._end + len(result))
        view = memoryview(result)
        while view:
            view = view[self._stream.write(view) :]
        self._end = span[1]
        self.found[address.place] = span
        self._journal.add({"place": address.place, "start": span[0], "stop": span[1]})

    def close(self) -> None:
        """Let the files go; the part can be opened again."""
        self._journal.close()
        self._stream.close()

    def seal(self, shard: Path, gone: Path) -> None:
        """Write the shard and the list of what is gone, and drop the part; the shard comes last, and says it is done.

        Args:
            shard: msgpack records of ``image`` and ``id``; empty where everything is gone.
            gone: CSV without header: key, address, reason, detail.
        """
        import msgpack

        with replacing(gone) as aside, aside.open("w", encoding="utf-8", newline="") as table:
            writer = CsvWriter(table)
            for address in self.addresses:
                fault = self.found[address.place]
                if isinstance(fault, Fault):
                    writer.writerow((address.key, address.url, fault.reason.value, fault.detail))
        with replacing(shard) as aside, aside.open("wb") as target:
            packer = msgpack.Packer()
            for address in self.addresses:
                span = self.found[address.place]
                if isinstance(span, tuple):
                    self._stream.seek(span[0])
                    target.write(packer.pack({"image": self._stream.read(span[1] - span[0]), "id": address.key}))
            target.flush()
            os.fsync(target.fileno())
        self.close()
        self._data.unlink()
        self._lines.unlink()


def _is_settled(record: dict[str, Any]) -> bool:
    kinds = {name: type(value) for name, value in record.items()}
    if kinds == {"place": int, "reason": str, "detail": str}:
        return record["reason"] in REASONS
    return kinds == {"place": int, "start": int, "stop": int} and 0 <= record["start"] <= record["stop"]


def _open(found: tuple[int, int] | Fault | None) -> bool:
    return found is None or (isinstance(found, Fault) and found.transient)


class Parts:
    """All parts of a list, in a folder that survives kills.

    ``with`` it: sealing goes on in a thread beside the downloads, and leaving waits for it.
    """

    def __init__(self, folder: Path, size: int = SHARD) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._size = folder, size
        self._under_way: dict[int, tuple[Part, int]] = {}
        self._thread = ThreadPoolExecutor(1)
        self._sealing: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        for part, _ in self._under_way.values():
            part.close()
        if error is None:
            self._raise_from_thread()

    def shard(self, number: int) -> Path:
        """The path of the sealed shard of a part."""
        return self._folder / f"{number:06d}.msg"

    def gone(self, number: int) -> Path:
        """The path of the list of photos missing from a part."""
        return self._folder / f"{number:06d}.csv"

    def sealed(self) -> list[int]:
        """The numbers of the parts that are done."""
        return sorted(int(path.stem) for path in self._folder.glob("*.msg") if re.fullmatch(r"[0-9]{6,}", path.stem))

    def missing(self, addresses: Iterable[Address]) -> Iterator[Address]:
        """What is still to be requested from a list. Its places count from 0."""
        for number, batch in enumerate(in_chunks(addresses, self._size)):
            self._raise_from_thread()
            if self.shard(number).exists():
                continue
            part = Part(self._folder, number, batch)
            missing = part.missing
            self._under_way[number] = (part, len(missing))
            if missing:
                yield from missing
            else:
                self._leave(number)

    def settle(self, address: Address, result: bytes | Fault) -> None:
        """Keep what became of an address that :meth:`missing` gave out."""
        number = address.place // self._size
        part, left = self._under_way[number]
        part.settle(address, result)
        self._under_way[number] = (part, left - 1)
        if left == 1:
            self._leave(number)

    def _leave(self, number: int) -> None:
        part, _ = self._under_way.pop(number)
        if part.missing:
            part.close()
        else:
            self._sealing.append(self._thread.submit(part.seal, self.shard(number), self.gone(number)))

    def _raise_from_thread(self) -> None:
        while self._sealing and self._sealing[0].done():
            self._sealing.pop(0).result()

    def seal_rest(self, addresses: Iterable[Address]) -> None:
        """Seal the parts that lack photos because of temporary errors: these photos count as gone."""
        for number, batch in enumerate(in_chunks(addresses, self._size)):
            if not self.shard(number).exists():
                Part(self._folder, number, batch).seal(self.shard(number), self.gone(number))

    def reopen(self, addresses: Iterable[Address], reasons: Container[str], before: float) -> int:
        """Open sealed parts again, so that :meth:`missing` gives out what was gone for one of some reasons.

        Their photos stay. A kill leaves a part sealed, or open with all that it had.

        Args:
            addresses: The list.
            reasons: The reasons that may have passed.
            before: Seconds since the epoch: only what was asked for before then.

        Returns:
            How many addresses are to be asked for again.

        Raises:
            UserError: A list of what is gone is damaged.
        """
        due = {number for number, (at, _) in self.waiting(reasons).items() if at < before}
        opened = 0
        for number, batch in enumerate(in_chunks(addresses, self._size)) if due else ():
            if number in due:
                opened += self._unseal(number, batch, reasons)
        return opened

    def waiting(self, reasons: Container[str]) -> dict[int, tuple[float, int]]:
        """The sealed parts that lack photos for one of some reasons: when each was asked for, and how many it lacks.

        Raises:
            UserError: A list of what is gone is damaged.
        """
        lacking = {number: sum(row[2] in reasons for row in self._gone(number)) for number in self.sealed()}
        return {number: (self.gone(number).stat().st_mtime, count) for number, count in lacking.items() if count}

    def _unseal(self, number: int, batch: Sequence[Address], reasons: Container[str]) -> int:
        import msgpack

        for left in (f"{number:06d}.data", f"{number:06d}.jsonl"):  # of a kill meanwhile
            (self._folder / left).unlink(missing_ok=True)
        faults = {row[0]: Fault(Gone(row[2]), row[3]) for row in self._gone(number)}
        part = Part(self._folder, number, batch)
        with self.shard(number).open("rb") as stream:
            photos = msgpack.Unpacker(stream)
            for address in batch:
                fault = faults.get(address.key)
                if fault is None:
                    part.settle(address, next(photos)["image"])
                elif fault.reason not in reasons:
                    part.settle(address, fault)
        opened = len(part.missing)
        part.close()
        self.shard(number).unlink()
        self.gone(number).unlink()
        return opened

    def all_gone(self) -> Iterator[list[str]]:
        """The rows of all sealed parts: key, address, reason, detail.

        Raises:
            UserError: A list is missing or damaged.
        """
        for number in self.sealed():
            yield from self._gone(number)

    def _gone(self, number: int) -> list[list[str]]:
        path = self.gone(number)
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                rows = list(csv.reader(stream))
        except (FileNotFoundError, UnicodeDecodeError, csv.Error) as error:
            raise _unsealed(path, self.shard(number), error) from None
        if any(len(row) != 4 or row[2] not in REASONS for row in rows):
            raise _unsealed(path, self.shard(number), "not key, address, reason and detail")
        return rows

    def summary(self) -> Counter[str]:
        """What is gone, by reason, over all sealed parts.

        Raises:
            UserError: A list is missing or damaged.
        """
        return Counter(row[2] for row in self.all_gone())


def _unsealed(path: Path, shard: Path, said: object) -> UserError:
    return UserError(
        f"{path}: {' '.join(str(said).split())}; expected the list of photos missing from {shard.name}: "
        f"remove {shard} and run the command again to download its photos again"
    )

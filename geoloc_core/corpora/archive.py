"""Tar files that others made, read once from start to end, never unpacked, in little memory whatever they hold."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from geoloc_core.corpora.photo import MAX_FILE_BYTES, Flaw, Reason, printable
from geoloc_core.errors import is_of_the_machine, named
from geoloc_core.progress import say

MAX_HEADER_BYTES = 2**20
"""A longer header of a member, with its name and what else is said of it, is refused: tarfile would hold it whole."""
MAX_DICTIONARY_BYTES = 2**28
"""What unpacking xz may take of memory."""
STEP = 2**20
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
"""What opens a compressed file, by how it starts."""


class Forward:
    """A stream that is read forward alone, and little of it where headers are due.

    Attributes:
        left: Bytes that may still be read; None for any number.
        last: What was read last.

    Args:
        stream: What is read.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.left: int | None = None
        self.last = b""
        self._stream, self._at = stream, 0

    def tell(self) -> int:
        """How many bytes have been read or skipped."""
        return self._at

    def seek(self, at: int) -> int:
        """Go on to a place.

        Raises:
            tarfile.ReadError: It is before the current position.
        """
        if at < self._at:
            raise tarfile.ReadError("a header leads back")
        if isinstance(self._stream, gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile):
            while at > self._at and (skipped := self._stream.read(min(at - self._at, STEP))):
                self._at += len(skipped)
        else:
            self._at = self._stream.seek(at)
        return self._at

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end.

        Raises:
            tarfile.ReadError: They are more than :attr:`left`.
        """
        if self.left is not None:
            self.left -= size
            if self.left < 0:
                raise tarfile.ReadError(f"a header of more than {MAX_HEADER_BYTES:,} bytes")
        data = self._stream.read(size)
        self._at += len(data)
        self.last = data
        return data


def members(tar: Path) -> Iterator[tuple[str, bytes | Flaw]]:
    """Names and bytes of the files in a tar, in order; or why a file's bytes cannot be had.

    What follows a broken one is lost, and one line says so.

    Raises:
        OSError: Of the machine, not of the file.
    """
    count, problem = 0, ""
    try:
        with _open(tar) as stream:
            forward = Forward(stream)
            forward.left = MAX_HEADER_BYTES
            with tarfile.open(fileobj=forward, mode="r:") as file:  # type: ignore[call-overload]
                while (member := _next(file, forward)) is not None:
                    if not member.isdir():
                        yield printable(member.name), _data(forward, member)
                        count += 1
            problem = "no header" if forward.last.strip(b"\0") else ""
    except Exception as error:  # tarfile and the decompressors raise whatever damaged bytes lead to
        if is_of_the_machine(error):
            raise named(error, tar) from None
        problem = " ".join(f"{type(error).__name__}: {error}".split())
    if problem:
        lost = "the photos after that point are refused as missing"
        say(f"{tar.name}: broken after {count:,} files ({problem}); {lost}")


def _open(tar: Path) -> IO[bytes]:
    with tar.open("rb") as stream:
        start = stream.read(64)
    for mark, opened in OPENERS.items():
        if start.startswith(mark):
            if opened is lzma.open:
                lzma.LZMADecompressor(memlimit=MAX_DICTIONARY_BYTES).decompress(start)
            return opened(tar, "rb")
    return tar.open("rb")


def _next(file: tarfile.TarFile, forward: Forward) -> tarfile.TarInfo | None:
    forward.left = MAX_HEADER_BYTES
    member = file.next()
    forward.left = None
    file.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
    return member


def _data(forward: Forward, member: tarfile.TarInfo) -> bytes | Flaw:
    if not member.isfile() or member.issparse():
        return Reason.NOT_A_PHOTO, "a link, a device or a sparse file in the tar, which is not followed"
    if member.size > MAX_FILE_BYTES:
        return Reason.TOO_LARGE, f"{member.size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
    forward.seek(member.offset_data)
    data = forward.read(member.size)
    return data if len(data) == member.size else (Reason.TRUNCATED, f"the tar ends after {len(data):,} bytes of it")

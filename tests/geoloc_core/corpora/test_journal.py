import csv

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc_core.corpora.answers import Address, Fault, Gone
from geoloc_core.corpora.journal import Journal, Part, Parts
from geoloc_core.errors import UserError

RECORDS = [{"place": 0, "start": 0, "stop": 7}, {"place": 3, "reason": "timeout", "detail": "30 s, é"}, {}]
LOST, LATER = Fault(Gone.NOT_FOUND, "status 404"), Fault(Gone.TIMEOUT, "slow")


def written(path):
    with Journal(path) as journal:
        for record in RECORDS:
            journal.add(record)
    return path.read_bytes()


def test_records_come_back(tmp_path):
    written(tmp_path / "a" / "j")
    with Journal(tmp_path / "a" / "j") as journal:
        assert journal.records == RECORDS


def test_wherever_a_journal_is_torn_the_whole_records_before_that_remain(tmp_path):
    whole = written(tmp_path / "j")
    for end in range(len(whole) + 1):
        (tmp_path / "j").write_bytes(whole[:end])
        with Journal(tmp_path / "j") as journal:
            count = whole[:end].count(b"\n")
            assert journal.records == RECORDS[:count]
            journal.add({"new": end})
        with Journal(tmp_path / "j") as journal:
            assert journal.records == [*RECORDS[:count], {"new": end}]


@given(st.binary(max_size=80))
def test_any_bytes_are_opened_and_what_is_added_comes_back(tmp_path_factory, tail):
    path = tmp_path_factory.mktemp("j") / "j"
    whole = written(path)
    path.write_bytes(whole + tail)
    with Journal(path) as journal:
        assert journal.records[: len(RECORDS)] == RECORDS
        before = list(journal.records)
        journal.add({"new": 1})
    with Journal(path) as journal:
        assert journal.records == [*before, {"new": 1}]


def unpacked(shard):
    with shard.open("rb") as stream:
        return [(record["id"], record["image"]) for record in msgpack.Unpacker(stream)]


def listed(count):
    return [Address(f"a/{n}.jpg", f"http://h/{n}", n) for n in range(count)]


def outcome(address):
    return LOST if address.place % 4 == 1 else b"photo %d" % address.place


@settings(max_examples=30)
@given(order=st.permutations(range(10)), stop=st.integers(0, 10), torn=st.integers(0, 3))
def test_a_shard_does_not_depend_on_the_order_of_answers_or_on_kills(tmp_path_factory, order, stop, torn):
    folder = tmp_path_factory.mktemp("parts")
    addresses = listed(10)
    part = Part(folder, 0, addresses)
    for place in order[:stop]:
        part.settle(addresses[place], outcome(addresses[place]))
    part.close()
    # Bytes without their line: killed between the two writes.
    with (folder / "000000.data").open("ab") as stream:
        stream.write(b"?" * torn)
    part = Part(folder, 0, addresses)
    assert {address.place for address in part.missing} == set(order[stop:])
    for place in order[stop:]:
        part.settle(addresses[place], outcome(addresses[place]))
    assert not part.missing
    part.seal(folder / "s", folder / "g")
    expected = [(address.key, outcome(address)) for address in addresses if outcome(address) is not LOST]
    assert unpacked(folder / "s") == expected
    assert [row[0] for row in csv.reader((folder / "g").open())] == ["a/1.jpg", "a/5.jpg", "a/9.jpg"]
    assert sorted(path.name for path in folder.iterdir()) == ["g", "s"]


def test_bytes_that_never_reached_the_disk_are_asked_for_again(tmp_path):
    addresses = listed(3)
    part = Part(tmp_path, 0, addresses)
    for address in addresses:
        part.settle(address, b"x" * 10)
    part.close()
    with (tmp_path / "000000.data").open("r+b") as stream:
        stream.truncate(15)
    part = Part(tmp_path, 0, addresses)
    assert part.missing == addresses[1:]
    part.settle(addresses[2], b"y" * 3)
    part.settle(addresses[1], LOST)
    part.seal(tmp_path / "s", tmp_path / "g")
    assert unpacked(tmp_path / "s") == [("a/0.jpg", b"x" * 10), ("a/2.jpg", b"y" * 3)]


def test_parts_are_sealed_as_they_fill_and_never_asked_for_again(tmp_path):
    def run(answer):
        asked = []
        with Parts(tmp_path / "p", 4) as parts:
            waiting = []
            for address in parts.missing(listed(10)):
                asked.append(address.place)
                waiting.append(address)
                if len(waiting) == 3:  # answers come late and in the wrong order
                    parts.settle(waiting[-1], answer(waiting.pop()))
            for address in waiting:
                parts.settle(address, answer(address))
        return asked, parts

    asked, parts = run(lambda address: LATER if address.place in (5, 9) else outcome(address))
    assert asked == list(range(10))
    assert parts.sealed() == [0]
    asked, parts = run(lambda address: LATER if address.place == 9 else outcome(address))
    assert asked == [5, 9]
    assert parts.sealed() == [0, 1]
    parts.seal_rest(listed(10))
    assert parts.sealed() == [0, 1, 2]
    assert parts.summary() == {"not_found": 2, "timeout": 1}
    assert run(outcome)[0] == []
    assert [key for n in range(3) for key, _ in unpacked(parts.shard(n))] == [
        f"a/{n}.jpg" for n in range(10) if n not in (1, 5, 9)
    ]


def test_a_shard_that_cannot_be_written_is_not_silent(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/shard: cannot be created"), Parts(tmp_path / "p", 2) as parts:
        monkeypatch.setattr(parts, "shard", lambda number: tmp_path / "file" / "shard")
        for address in list(parts.missing(listed(2))):
            parts.settle(address, b"x")

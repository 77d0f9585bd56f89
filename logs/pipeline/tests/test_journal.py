"""The journal."""

import os
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logs.pipeline.journal import MAX_RECORD_BYTES, Journal, adopt_orphans, closed_segments, read_segment, ship_segment


def segments(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.open"), *folder.glob("*.closed")])


def test_appended_records_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_s=0)
    for payload in (b"one", b"", b"three" * 1000):
        journal.append(payload)
    (segment,) = segments(tmp_path)
    assert list(read_segment(segment)) == [b"one", b"", b"three" * 1000]
    journal.close()
    assert len(closed_segments(tmp_path)) == 1


@given(cut=st.integers(1, 40))
def test_a_torn_last_record_costs_only_itself(cut: int, tmp_path_factory: object) -> None:
    folder = tmp_path_factory.mktemp("torn")  # type: ignore[attr-defined]
    journal = Journal(folder, segment_s=0)
    journal.append(b"whole")
    journal.append(b"x" * 40)
    (segment,) = segments(folder)
    segment.write_bytes(segment.read_bytes()[:-cut])
    assert list(read_segment(segment)) == [b"whole"]
    journal.close()


def test_only_segments_of_dead_processes_are_adopted(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_s=0)
    journal.append(b"mine")
    assert adopt_orphans(tmp_path) == 0
    # As a dead process leaves it: an open segment whose lock is free.
    (tmp_path / "0000000000001-dead-000001.open").write_bytes((segments(tmp_path)[0]).read_bytes())
    (tmp_path / "0000000000001-dead.lock").touch()
    assert adopt_orphans(tmp_path) == 1
    assert [list(read_segment(path)) for path in closed_segments(tmp_path)] == [[b"mine"]]
    journal.close()


def test_a_segment_is_deleted_only_when_nothing_of_it_is_missing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_s=0)
    ids = [UUID(int=number) for number in range(3)]
    for each in ids:
        journal.append(each.bytes)
    journal.close()
    (segment,) = closed_segments(tmp_path)
    known: set[UUID] = {ids[0]}
    settled: list[UUID] = []

    def ship() -> bool:
        return ship_segment(
            segment,
            id_of=lambda payload: UUID(bytes=payload),
            missing=lambda wanted: set(wanted) - known,
            settle=lambda payload: settled.append(UUID(bytes=payload)),
        )

    assert not ship()
    assert sorted(settled) == ids[1:]
    assert segment.exists()
    known.update(ids)
    assert ship()
    assert not segment.exists()
    assert ship()  # a sibling was faster


def test_segments_rotate_when_they_are_due(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_s=0)
    assert journal.rotate() is None  # nothing in it yet
    journal.append(b"one")
    close_old = journal.rotate()
    assert close_old is not None
    journal.append(b"two")
    close_old()
    assert [list(read_segment(path)) for path in segments(tmp_path)] == [[b"one"], [b"two"]]
    journal.close()


def test_a_half_written_record_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, segment_s=0)
    journal.append(b"before")
    whole_write = os.write
    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "write", lambda file, record: whole_write(file, record[: len(record) // 2]))
        with pytest.raises(OSError, match="part of the record"):
            journal.append(b"lost on a full disk")
    journal.append(b"after")
    (segment,) = segments(tmp_path)
    assert list(read_segment(segment)) == [b"before", b"after"]
    journal.close()


def test_a_record_too_large_for_readers_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_s=0)
    with pytest.raises(OSError, match="hide everything"):
        journal.append(b"x" * (MAX_RECORD_BYTES + 1))
    journal.append(b"after")
    (segment,) = segments(tmp_path)
    assert list(read_segment(segment)) == [b"after"]
    journal.close()


def test_an_unreadable_event_blocks_no_other_segment(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_s=0)
    good, bad = (UUID(int=number) for number in range(2))
    for each in (bad, good):
        journal.append(each.bytes)
    journal.close()
    (segment,) = closed_segments(tmp_path)
    known: set[UUID] = set()

    def settle(payload: bytes) -> None:
        if payload == bad.bytes:
            raise ValueError
        known.add(UUID(bytes=payload))

    def ship() -> bool:
        return ship_segment(
            segment,
            id_of=lambda payload: UUID(bytes=payload),
            missing=lambda wanted: set(wanted) - known,
            settle=settle,
        )

    assert not ship()
    assert known == {good}
    assert ship()  # all the others are there: set aside for the operator
    assert [list(read_segment(path)) for path in tmp_path.glob("*.bad")] == [[bad.bytes, good.bytes]]
    assert closed_segments(tmp_path) == []

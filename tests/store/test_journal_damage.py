"""A journal that cannot be read never blocks the start: it is set aside and the newest backup takes its place."""

import os
import shutil
import sqlite3

import pytest

from edge.journal import Journal, JournalError
from edge.journal.backup import backups
from plant.events import PartsProduced
from plant.tags import Tag


def parts(number):
    return PartsProduced(id=f"e{number}", time=number, asset="a/l/c", count=1.0)


def ids(journal):
    return [event.id for _, event in journal.after(0, 100_000)]


@pytest.fixture
def crashed(tmp_path):
    """A journal as a crash leaves it: 50 events in the file, 50 in the log; a backup of the first 20."""
    origin = tmp_path / "origin"
    journal = Journal.open(origin / "journal.sqlite")
    journal.register_tags([Tag(name="a", index=0)])
    journal.append([parts(n) for n in range(20)])
    journal.back_up()
    journal.append([parts(n) for n in range(20, 50)])
    journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for number in range(50, 100):
        journal.append([parts(number)])
    shutil.copytree(origin, tmp_path / "state", ignore=shutil.ignore_patterns("*-shm"))
    epoch = journal.epoch
    journal.close()
    return tmp_path / "state" / "journal.sqlite", epoch


def test_a_crash_loses_nothing(crashed):
    path, epoch = crashed
    journal = Journal.open(path)
    assert ids(journal) == [f"e{n}" for n in range(100)]
    assert (journal.origin, journal.epoch, journal.notes) == ("kept", epoch, [])
    journal.close()


def test_a_torn_log_gives_a_prefix(crashed):
    path, _ = crashed
    log = path.with_name(path.name + "-wal")
    content, file = log.read_bytes(), path.read_bytes()
    assert len(content) > 100_000
    for cut in [0, 1, 31, 32, 33, 100, *range(1000, len(content), len(content) // 25), len(content) - 1]:
        log.write_bytes(content[:cut])
        path.write_bytes(file)
        journal = Journal.open(path)
        found = ids(journal)
        assert found == [f"e{n}" for n in range(len(found))]
        assert 50 <= len(found) < 100 or cut == len(content)
        assert journal.origin == "kept"
        journal.close()


def test_a_truncated_file_is_replaced_by_the_backup(crashed):
    path, epoch = crashed
    file = path.read_bytes()
    path.with_name(path.name + "-wal").unlink()
    for cut in [0, 1, 99, 100, 4095, 4096, *range(5000, len(file), len(file) // 10), len(file) - 1]:
        path.write_bytes(file[:cut])
        journal = Journal.open(path)
        assert ids(journal) == [f"e{n}" for n in range(20)], cut
        assert journal.origin == "restored"
        assert journal.epoch != epoch
        assert "set aside" in journal.notes[0]
        assert journal.tag_indices() == {"a": 0}
        assert journal.append([parts(1000)]) == 21
        journal.close()
    assert len(list(path.parent.glob("*.damaged.*"))) <= 6


@pytest.mark.parametrize("content", [b"", b"not a database", os.urandom(100_000)], ids=["empty", "text", "noise"])
def test_without_a_backup_it_starts_empty_and_says_so(tmp_path, content):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    journal = Journal.open(path)
    assert journal.origin == "new"
    assert "starts empty" in journal.notes[0]
    assert journal.append([parts(1)]) == 1
    journal.close()
    assert (tmp_path / "journal.sqlite.damaged.1").read_bytes() == content


def test_a_damaged_backup_is_passed_over(crashed):
    path, _ = crashed
    journal = Journal.open(path)
    newest = journal.back_up()
    journal.close()
    newest.write_bytes(b"x" * 10_000)
    path.write_bytes(b"y" * 10_000)
    again = Journal.open(path)
    assert len(ids(again)) == 20
    assert len(again.notes) == 2
    again.close()


def test_a_missing_journal_comes_back_from_its_backup(crashed):
    path, _ = crashed
    for part in path.parent.glob("journal.sqlite*"):
        part.unlink()
    journal = Journal.open(path)
    assert len(ids(journal)) == 20
    assert "missing" in journal.notes[0]
    journal.close()


def test_the_database_of_something_else_is_set_aside(tmp_path):
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as stranger:
        stranger.execute("CREATE TABLE x (y)")
    stranger.close()
    journal = Journal.open(path)
    assert journal.origin == "new"
    assert "something else" in journal.notes[0]
    journal.close()


def test_a_journal_of_a_later_version_is_refused_and_kept(tmp_path):
    path = tmp_path / "journal.sqlite"
    Journal.open(path).close()
    with sqlite3.connect(path) as later:
        later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(JournalError, match="install a newer one"):
        Journal.open(path)
    assert list(path.parent.glob("*.damaged*")) == []


def test_only_the_newest_backups_are_kept(tmp_path):
    journal = Journal.open(tmp_path / "journal.sqlite")
    for number in range(4):
        journal.append([parts(number)])
        journal.back_up()
    assert [path.name for path in backups(journal.backup_folder)] == [
        "journal-00000004.sqlite", "journal-00000003.sqlite",
    ]  # fmt: skip
    journal.close()


def test_a_damage_while_running_is_healed_by_opening_again(tmp_path):
    journal = Journal.open(tmp_path / "journal.sqlite")
    journal.append([parts(n) for n in range(2000)])
    journal.back_up()
    journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with journal.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"x" * (journal.path.stat().st_size - 4096))
    journal.reopen()
    assert journal.origin == "restored"
    assert len(ids(journal)) == 2000
    journal.close()

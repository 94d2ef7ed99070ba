"""Tables of releases: columns by name, and refusals that help."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from core.tables import TableError, is_broken, plain_id, read_rows, says_nothing

TEXT = 'study_id,note,split\n1,"a, ""b""\nc",train\n2,é,test\n'


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
@pytest.mark.parametrize("zipped", [True, False])  # a browser unpacks, and keeps the name
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_columns_are_read_by_name(name: str, zipped: bool, mark: str, tmp_path: Path) -> None:
    data = (mark + TEXT).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert list(read_rows(path, ("split", "study_id", "note"))) == [("train", "1", 'a, "b"\nc'), ("test", "2", "é")]


def test_a_long_field_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"a,b\n1,{'x' * 2_000_000}\n2,y\n")
    assert [len(text) for (text,) in read_rows(path, ("b",))] == [2_000_000, 1]


def test_bytes_that_are_not_utf8_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("a\nnaïve\n".encode() + "naïve\n".encode("latin-1"))
    assert [is_broken(text) for (text,) in read_rows(path, ("a",))] == [False, True]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has no column study_id.*Its header has: nothing"),
        (b"subject,split\n1,train\n", "has no column study_id. Its header has: subject, split"),
        (TEXT.encode("utf-16"), "has no column study_id"),
        (b"study_id;split\n1;train\n", "has no column study_id"),
        (b"study_id,split\n1,train\n2", "line 3: 1 fields where the header has 2.*get it again"),
        (b"study_id,split\n1,train\n2,a,b\n", "line 3: 3 fields"),
        (b'study_id,split\n1,"train\n2,a\n3,b\n', "unexpected end of data. The file was cut off"),
    ],
)
def test_damaged_tables_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(TableError, match=f"t.csv.*({message})"):
        list(read_rows(path, ("study_id",)))


@pytest.mark.parametrize("cut", [5, 30, -6])
def test_a_gzip_file_that_was_cut_off_is_refused(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(TEXT.encode() * 1)[:cut])
    with pytest.raises(TableError, match="again"):
        list(read_rows(path, ("study_id",)))


def test_a_table_that_is_not_there_and_one_that_is_no_gzip_file(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="No such file"):
        list(read_rows(tmp_path / "none.csv", ("a",)))
    (tmp_path / "t.csv.gz").write_bytes(b"<html>404</html>")
    with pytest.raises(TableError, match=r"has no column a\. Its header has: <html>404</html>"):
        list(read_rows(tmp_path / "t.csv.gz", ("a",)))


def test_ids_that_were_numbers_for_a_while() -> None:
    given = ["50414267.0", "50414267", "s50414267.2", "s1.0", "1.5", "", ".0", "10.00"]
    assert [plain_id(each) for each in given] == [
        "50414267",
        "50414267",
        "s50414267.2",
        "s1.0",
        "1.5",
        "",
        ".0",
        "10.00",
    ]


@pytest.mark.parametrize("cell", ["", "N/A", "n/a", ".", "-", "--", "___", "XXXX", "XXXX XXXX.", "None.", "nan", "NULL",
    "unknown", "<unknown>", "<unk> <unk> .", "?"])  # fmt: skip
def test_cells_that_say_nothing(cell: str) -> None:
    assert says_nothing(cell)
    assert not says_nothing(f"{cell} Clear.")


@pytest.mark.parametrize("cell", ["0", "-1", "Normal.", "No change.", "XXXX lungs", "See CT."])
def test_cells_that_say_something(cell: str) -> None:
    assert not says_nothing(cell)

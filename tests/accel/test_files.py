import pytest

from ajour.files import read_json


def test_json_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "some.json"
    path.write_bytes(b"[1, 2]")
    assert read_json(path, 6, "list") == [1, 2]
    with pytest.raises(ValueError, match=r"list '.*some.json' is larger than 5 bytes"):
        read_json(str(path), 5, "list")
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ValueError, match="is larger than 1 MiB"):
        read_json(path, 2**20, "list")


@pytest.mark.parametrize("raw", [b"", b"[1", b"\xff", b"[" * 100_000], ids=["0", "[", "ff", "deep"])
def test_what_is_not_json_is_refused(tmp_path, raw):
    path = tmp_path / "some.json"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"list '.*some.json' is not JSON"):
        read_json(path, 2**20, "list")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read list '.*none.json': No such file"):
        read_json(tmp_path / "none.json", 9, "list")
    with pytest.raises(ValueError, match="cannot read list"):
        read_json(tmp_path, 9, "list")

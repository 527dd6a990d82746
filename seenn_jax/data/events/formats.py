"""Formats that files of recordings are not of, by how they begin."""

HDF5, ZIP = "an HDF5 file", "a ZIP archive"
_KNOWN = (
    (b"#!AER-DAT", "an AEDAT file"),
    (b"\x89HDF", HDF5),
    (b"PK\x03\x04", ZIP),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"% ", "a recording of Prophesee (.raw or .dat)"),
    (b"<!DOCTYPE html", "a page of the web"),
    (b"<!doctype html", "a page of the web"),
    (b"<html", "a page of the web"),
)


def other_format(start: bytes) -> str | None:
    """What a file is by its first bytes, 16 or more, where that is known."""
    return next((name for begins, name in _KNOWN if start.startswith(begins)), None)

"""The files of a report are whole, or as they were."""

import errno
import json
import math
import os

import pytest

from seenn_jax.report.files import write_report
from tests.report.made_up import ALL, made_up, made_up_details


@pytest.mark.parametrize("details", [(), (made_up_details(),)], ids=["alone", "details"])
@ALL
def test_json_round_trip(result, details, tmp_path):
    page = write_report(result, tmp_path / "evaluation" / "confidence", *details)
    assert page == tmp_path / "evaluation" / "confidence" / "report.html"
    assert json.loads((page.parent / "result.json").read_text()) == result
    names = {path.name for path in page.parent.iterdir()}
    assert names == {"result.json", "curve.png", "exits.png", "report.html"}
    for name in ("curve.png", "exits.png"):
        assert (page.parent / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_second_report_replaces_the_first(tmp_path):
    write_report(made_up(), tmp_path)
    write_report(made_up(accuracy=0.5), tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["accuracy"] == 0.5
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_hold_is_refused_before_writing(value, tmp_path):
    write_report(made_up(), tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_report(made_up(aet=value), tmp_path)
    assert (tmp_path / "result.json").read_bytes() == before


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_report(made_up(), tmp_path)
    before = (tmp_path / "result.json").read_bytes()

    def full_disk(self, content):
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_report(made_up(accuracy=0.5), tmp_path)
    assert (tmp_path / "result.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 4

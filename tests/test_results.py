"""results/ obeys its schema, and what is printed from it is what stands in the documents."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seenn_jax.errors import UserError

ROOT = Path(__file__).parent.parent
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "benchmarks")
    import print_results
    import records
    import tables

FILES = sorted(records.RESULTS.glob("*.json"))
DOCUMENTS = (*print_results.BLOCKS, *(f"docs/{name}" for name in print_results.PAGES))
RECORD = {
    "what": "A figure",
    "command": "python benchmarks/early_exit.py",
    "config": {},
    "seed": 0,
    "revision": "0123456789ab",
    "versions": {"jax": "0.10.2"},
    "device": "1 x cpu",
    "figures": {"accuracy": 0.5},
    "note": "",
}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


# --- results/ ------------------------------------------------------------------------------------


@each_file
def test_a_file_has_records_of_the_schema(path):
    found = records.load(path)
    assert found
    for record in found:
        assert tuple(record) == records.FIELDS
        assert re.fullmatch(r"[0-9a-f]{12}", record["revision"])
        for field in ("what", "command"):
            assert record[field].strip()
            assert "\n" not in record[field]
        assert isinstance(record["config"], dict)
        assert isinstance(record["seed"], int | None)
        assert record["figures"]
        assert isinstance(record["note"], str)
        for field in ("device", "versions"):
            # What is not known is said.
            assert record[field] or f"No {field}" in record["note"]


@each_file
def test_no_two_records_of_a_file_are_of_the_same(path):
    whats = [record["what"] for record in records.load(path)]
    assert len(set(whats)) == len(whats)


@each_file
def test_a_file_is_written_as_records_writes_it(path):
    assert path.read_text() == records.text(records.load(path))


@each_file
def test_sweeps_are_there_and_are_numbers(path):
    for record in records.load(path):
        if "sweep" in record["figures"]:
            rows = records.load_rows(records.RESULTS / record["figures"]["sweep"])
            assert len(rows) > 1
            for row in rows:
                assert 0 <= float(row["accuracy"]) <= 1
                assert float(row["average_timesteps"]) >= 1


def test_every_sweep_is_of_a_record():
    named = {record["figures"].get("sweep") for path in FILES for record in records.load(path)} - {
        None
    }
    there = (records.RESULTS / "sweeps").iterdir()
    assert {f"sweeps/{path.name}" for path in there} == named


@each_file
def test_no_path_of_a_machine_is_in_a_file(path):
    assert not re.search(r"(?<![\w.])/(work|tmp|root|home|mnt|var|Users)\b", path.read_text())


@each_file
def test_keys_are_those_of_the_package(path):
    """A result of evaluate.py says slots and precision."""
    for record in records.load(path):
        for row in (record["figures"], *record["figures"].get("rows", ())):
            if "threshold_rule" in row:
                assert {"slots", "precision"} <= set(row)
                assert not {"batch_size", "dtype"} & set(row)


# --- The documents -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", print_results.PAGES)
def test_a_page_is_what_is_printed(name):
    assert (ROOT / "docs" / name).read_text() == print_results.PAGES[name]()


@pytest.mark.parametrize("name", print_results.BLOCKS)
def test_a_table_in_a_page_is_what_is_printed(name):
    text = (ROOT / name).read_text()
    assert text == print_results.filled(name, text)


@each_file
def test_every_file_is_printed(path):
    printed = [*print_results.PAGES.values(), *print_results.BLOCKS.values()]
    pages = "".join(each() for each in printed)
    assert f"`results/{path.name}`" in pages


@pytest.fixture
def documents(tmp_path, monkeypatch):
    """A copy of the documents, which print_results writes and checks."""
    monkeypatch.setattr(print_results, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    for name in DOCUMENTS:
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["print_results.py", *arguments])
    return print_results.main()


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_a_typed_figure_is_found_and_mended(documents, monkeypatch, capsys, name):
    assert call(monkeypatch, "--check") == 0
    assert not capsys.readouterr().out
    right = (documents / name).read_text()
    figure = re.search(r"CIFAR-10: (\d\d\.\d\d) %", (documents / "README.md").read_text())[1]
    assert figure in right
    (documents / name).write_text(right.replace(figure, "12.34"))
    assert call(monkeypatch, "--check") == 1
    assert capsys.readouterr().out.startswith(f"{name} is not what results/ gives")
    assert call(monkeypatch) == 0
    assert (documents / name).read_text() == right


def test_a_page_that_is_not_there_differs(documents, monkeypatch, capsys):
    (documents / "docs" / "results.md").unlink()
    assert call(monkeypatch, "--check") == 1
    assert "docs/results.md" in capsys.readouterr().out


def test_a_readme_without_a_place_is_a_sentence():
    with pytest.raises(UserError, match=r"README\.md has not one line <!-- results: begin -->"):
        print_results.filled("README.md", "# Nothing\n")


def test_a_record_that_is_not_there_is_a_sentence():
    with pytest.raises(UserError, match=r"digits\.json has 0 records of 'nothing'"):
        tables.find("digits", "nothing")


# --- Records -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.pop("note"), "record 2 lacks note: a record has what, command"),
        (lambda record: record.update(seconds=1), "record 2 has seconds: a record has what"),
    ],
    ids=["lacks", "has"],
)
def test_a_record_of_other_fields_is_a_sentence(tmp_path, change, words):
    other = dict(RECORD)
    change(other)
    path = tmp_path / "some.json"
    path.write_text(records.text([RECORD, other]))
    with pytest.raises(UserError, match=rf"some\.json: {words}"):
        records.load(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=3))
def test_text_keeps_what_it_is_given(found):
    assert json.loads(records.text(found)) == {"records": found}


def test_text_has_a_line_for_each_row():
    text = records.text([{**RECORD, "figures": {"rows": [{"t": 1}, {"t": [2, 3]}], "a": {}}}])
    assert '     {"t": 1},\n     {"t": [2, 3]}\n' in text


def test_a_record_is_added_beside_others(tmp_path):
    path = tmp_path / "results" / "some.json"
    points = [{"average_timesteps": 1.0, "accuracy": 0.5}, {"average_timesteps": 2, "accuracy": 1}]
    records.add(path, RECORD, points)
    records.add(path, {**RECORD, "what": "Another"})
    records.add(path, {**RECORD, "what": "A third"}, points[:1])
    first, second, third = records.load(path)
    assert first == {**RECORD, "figures": {"accuracy": 0.5, "sweep": "sweeps/some.csv"}}
    assert second == {**RECORD, "what": "Another"}
    assert third["figures"]["sweep"] == "sweeps/some_2.csv"
    assert records.load_rows(path.parent / "sweeps" / "some.csv") == [
        {"average_timesteps": "1.0", "accuracy": "0.5"},
        {"average_timesteps": "2", "accuracy": "1"},
    ]
    assert len(records.load_rows(path.parent / "sweeps" / "some_2.csv")) == 1
    assert RECORD["figures"] == {"accuracy": 0.5}  # what was given is as it was


# --- Markdown ------------------------------------------------------------------------------------


def test_numbers_in_words():
    assert tables.percent(0.91774) == "91.77"
    assert tables.count(90814.4) == "90,814"
    assert tables.minutes(59.6) == "1 min 0 s"
    assert tables.minutes(8) == "8 s"
    assert tables.span([0.5, 0.25]) == "25.00 to 50.00"
    assert tables.mean(iter([1, 2, 6])) == 3


def test_a_table():
    assert tables.table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"


def test_sources_say_once_what_all_notes_say():
    record = {**RECORD, "file": "some"}
    one = {**record, "command": "a; b", "note": "Of one at T = 2. Of both."}
    two = {**record, "what": "Another", "device": None, "seed": None, "note": "Of both."}
    again = {**two, "what": "A third"}
    assert tables.sources(one, two, again) == (
        "```sh\na\nb\n```\n\n"
        "A figure: revision `0123456789ab`, seed 0, 1 x cpu, jax 0.10.2, `results/some.json`. "
        "Of one at T =\n2.\n\n"
        "```sh\npython benchmarks/early_exit.py\n```\n\n"
        "Another; A third: revision `0123456789ab`, jax 0.10.2, `results/some.json`.\n\n"
        "Of all these: Of both."
    )

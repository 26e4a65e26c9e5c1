"""Lists of labels are read in three forms, and what is none is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.errors import DataError
from vrft_bench.tasks.base import ClassTarget
from vrft_bench.tasks.data.label_list import load_label_list


@pytest.mark.parametrize(
    ("name", "text", "ids"),
    [
        ("a.csv", "image,label\n1.jpg,pug\n2.jpg,beagle\n3.jpg,pug\n", ["1.jpg", "2.jpg", "3.jpg"]),
        ("a.csv", "label\npug\nbeagle\npug\n", ["row 1", "row 2", "row 3"]),
        ("a.json", '["pug", "beagle", "pug"]', ["label 1", "label 2", "label 3"]),
        ("a.txt", "pug\n\n beagle \npug", ["line 1", "line 3", "line 4"]),
        ("labels", "\ufeffpug\r\nbeagle\r\npug\r\n", ["line 1", "line 2", "line 3"]),
    ],
)
def test_each_form_gives_the_labels_in_order(tmp_path: Path, name: str, text: str, ids: list[str]) -> None:
    (tmp_path / name).write_bytes(text.encode())
    dataset = load_label_list(tmp_path / name)
    samples = list(dataset.samples())
    assert [sample.id for sample in samples] == ids
    assert [sample.target for sample in samples] == [ClassTarget(name) for name in ("pug", "beagle", "pug")]
    assert dataset.categories == ("beagle", "pug")
    assert samples[0].fields["options"] == "beagle, pug"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "has no label in it"),
        ("a.csv", b"image,label\n", "has no label in it"),
        ("a.csv", b"image,name\n1.jpg,pug\n", "row 1|1.jpg has no label"),
        ("a.csv", b"image,label\n1.jpg,pug\n2.jpg, \n", "2.jpg has no label that is text"),
        ("a.csv", b'label\n"' + b"x" * 200_000 + b'"\n', "is not CSV: field larger"),
        ("a.json", b"", "is not JSON"),
        ("a.json", b"[]", "has no label in it"),
        ("a.json", b'{"a": "pug"}', "is not a list of labels"),
        ("a.json", b"[1, 2]", "is not a list of labels"),
        ("a.json", b'["pug", ""]', "label 2 has no label that is text"),
        ("a.json", b'["\\ud800"]', "half a surrogate pair"),
        ("a.txt", b" \n\n", "has no label in it"),
        ("a.txt", b"\xff\xfe\x00", "is not UTF-8"),
        ("a.txt", b"\0\0\0", "has no label that is text"),
    ],
)
def test_what_is_no_list_of_labels_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as failure:
        load_label_list(tmp_path / name)
    assert failure.value.fix


@pytest.mark.parametrize("name", ["absent.csv", "absent.json", "absent.txt", "."])
def test_a_file_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"No such file|there is no file|is a folder"):
        load_label_list(tmp_path / name)


@given(st.lists(st.text(min_size=1).map(str.strip).filter(lambda text: text and "\0" not in text), min_size=1))
def test_any_labels_survive_the_way_through_json(tmp_path_factory: pytest.TempPathFactory, labels: list[str]) -> None:
    path = tmp_path_factory.mktemp("labels") / "a.json"
    path.write_text(json.dumps(labels))
    assert [sample.target for sample in load_label_list(path).samples()] == [ClassTarget(label) for label in labels]

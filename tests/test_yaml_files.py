"""Where a configuration is no YAML, or says something twice."""

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from radquant.errors import UserError
from radquant.settings.yaml_files import check_yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2"),
        ("a: 1\n\tb: 2\n", "line 2, column 1"),
        ("a:\n  b: 1\n c: 2\n", "line 3, column 2"),
        ("a: 'open\n", "line 2, column 1"),
        ("a: \x00\n", "special characters are not allowed"),
        ("a: " + "[" * 100_000, "nested too deeply"),
        (
            "a: 1\nb:\n  c: 1\n  c: 2\n",
            "'c' stands in line 4, column 3 and already in line 3, column 3",
        ),
        ("a: {b: 1, b: 1}\n", "'b' stands in line 1, column 11 and already in line 1, column 5"),
        ("a: 010\n", "line 1, column 4 has 010"),
        ("a: 12:30:00\n", "line 1, column 4 has 12:30:00"),
        ("a: 1:30.5\n", "line 1, column 4 has 1:30.5"),
        ("a: 2026-13-45\n", "line 1, column 4 has 2026-13-45"),
        ("a: 0x10\n", "line 1, column 4 has 0x10"),
        ("012: 1\n", "line 1, column 1 has 012"),
        ("a: " + "1" * 5000, "line 1, column 4 has 111"),
        ("a: !!python/object/apply:os.system [id]\n", "line 1, column 4 has the tag"),
        ("a: !!binary aGk=\n", "line 1, column 4 has the tag"),
        ('{"a": 1, "a": 2}', "'a' stands twice in one object"),
        ("- 1\n", "must hold keys"),
        ("a: " + "x" * 1_000_000, "over 1000000 bytes"),
        ("- a: 1\n  a: 2\n", "'a' stands in line 2, column 3 and already in line 1, column 3"),
    ],
)
def test_the_place_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        check_yaml(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(UserError, match="no UTF-8 text: byte 4"):
        check_yaml(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "dangling", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="is not a file"):
            check_yaml(path)


@pytest.mark.parametrize("path", sorted([ROOT / "config.yaml", *(ROOT / "config").glob("*.yaml")]))
def test_our_own_are_well(path: Path) -> None:
    check_yaml(path)


def test_aliases_are_looked_at_once(tmp_path: Path) -> None:
    """A billion laughs: nine lists of nine aliases each."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    path = tmp_path / "own.yaml"
    path.write_text("\n".join(lines))
    check_yaml(path)


def test_json_is_taken_as_snakemake_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text('{\n\t"a": [1]\n}\n')
    check_yaml(path)
    path.write_text("")
    check_yaml(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(value=st.dictionaries(st.text(), values, max_size=4))
def test_what_yaml_writes_is_well(value: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    check_yaml(path)

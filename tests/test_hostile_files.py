"""Files made to break what reads them: read right, or refused with a sentence that says where."""

import contextlib
import csv
import gzip
import io
import json
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tiny_models import tiny_llama

from radquant.checkpoints.loading import load
from radquant.corpus.formats import openi, table, text_folder
from radquant.corpus.formats.kind import Source
from radquant.errors import UserError
from radquant.fetching import model_from_directory
from radquant.files import as_text, as_written, read_table, write_table
from radquant.image_files import image_files
from radquant.settings.configuration import resolve

SCHEMA = Path(__file__).parents[1] / "config" / "schema.yaml"
HEADER = b"id,findings,impression\n"
REPORT = b"FINDINGS: clear.\nIMPRESSION: normal.\n"


def refusal(read: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments)
    return str(caught.value)


# ------------------------------------------------------------------------------------- tables


def table_of(folder: Path, name: str, content: bytes) -> list[tuple[str, str, str]]:
    (folder / name).write_bytes(content)
    found = table.read(Source(path=folder / name))
    return [(report.id, report.findings, report.impression) for report in found]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (HEADER + b"1,a\0b,c\n", [("1", "a\0b", "c")]),
        (b"\xef\xbb\xbf" + HEADER + b"1,a,c\n", [("1", "a", "c")]),
        (b'\xef\xbb\xbf"id","findings",impression\n1,a,c\n', [("1", "a", "c")]),
        (HEADER.replace(b"\n", b"\r") + b"1,a,b\r2,c,d\r", [("1", "a", "b"), ("2", "c", "d")]),
        (
            HEADER.replace(b"\n", b"\r\n") + b'1,a,b\n2,"x\r\ny\nz\rw",c\r3,d,e\r\n',
            [("1", "a", "b"), ("2", "x\r\ny\nz\rw", "c"), ("3", "d", "e")],
        ),
    ],
    ids=["nul", "bom", "bom and quotes", "cr", "mixed newlines"],
)
def test_a_csv_is_read_right(tmp_path: Path, content: bytes, rows: object) -> None:
    assert table_of(tmp_path, "t.csv", content) == rows


def test_a_cell_of_ten_megabytes(tmp_path: Path) -> None:
    content = HEADER + b'1,"' + b"a " * 5_000_000 + b'",c\n'
    assert len(table_of(tmp_path, "t.csv", content)[0][1]) == 10_000_000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"id,findings,findings\n1,a,b\n", "two columns named 'findings'"),
        ("a.csv", HEADER + b"1,a\n", "row 2: 2 cells where the header has 3"),
        ("a.csv", HEADER + b'1,"a,c\n', "row 2: malformed CSV"),
        ("a.csv", HEADER + b"1,\x8f,c\n", "line 2: not UTF-8"),
        ("a.csv", HEADER.decode().encode("utf-16")[:-1], "line 1: not utf-16"),
        ("a.csv.gz", gzip.compress(HEADER + b"1,a,b\n", mtime=0)[:-9], "not a whole gzip file"),
        ("a.jsonl", b'{"id":"1","findings":"a","findings":"b"}\n', "line 1: two values of 'findin"),
        ("a.jsonl", b'{"id":"1","findings":"\\ud800"}\n', "line 1: column 'findings' holds a br"),
        ("a.jsonl", b'{"id":' + b"9" * 5000 + b"}\n", "line 1: not valid JSON"),
        ("a.jsonl", b'{"id":' + b"[" * 100_000 + b"}\n", "line 1: not valid JSON"),
    ],
)
def test_a_table_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    said = refusal(table_of, tmp_path, name, content)
    assert said.startswith(str(tmp_path / name))
    assert words in said


def test_a_packed_table_out_of_proportion_is_refused(tmp_path: Path) -> None:
    content = gzip.compress(HEADER + b"a" * 150_000_000, compresslevel=1, mtime=0)
    assert "over a hundred times" in refusal(table_of, tmp_path, "t.csv.gz", content)


def parquet_bytes(table: pa.Table) -> bytes:
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    """Wherever one byte is wrong: the same rows still come out, or one sentence."""
    whole = parquet_bytes(pa.table({"id": ["1", "2"], "findings": ["a" * 99, "b"]}))
    for place in range(4, len(whole), 17):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        with contextlib.suppress(UserError):
            table_of(tmp_path, "t.parquet", bytes(damaged))


def test_columns_of_a_parquet_file(tmp_path: Path) -> None:
    names = ["id", "findings", "findings"]
    twice = pa.table([pa.array(["1"]), pa.array(["a"]), pa.array(["b"])], names=names)
    assert "two columns" in refusal(table_of, tmp_path, "t.parquet", parquet_bytes(twice))
    offsets = pa.array([0, 2], pa.int32()).buffers()[1]
    broken = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    content = parquet_bytes(pa.table({"id": ["1"], "findings": broken}))
    assert "after row 0" in refusal(table_of, tmp_path, "t.parquet", content)


CELLS = st.text() | st.sampled_from(
    ["=1+1", "+1", "-1", "@A", "\t=1", "\r=1", "'=1", "''=1", "a\rb"]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_a_csv_that_a_spreadsheet_opens_holds_no_formula(rows: list[tuple[str, str]]) -> None:
    """And `read_table` gives back what was written, to the character."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        write_table(path, pd.DataFrame(rows, columns=["id", "findings"], dtype="str"))
        assert read_table(path).to_numpy().tolist() == [list(row) for row in rows]
        with open(path, encoding="utf-8", newline="") as file:
            shown = [cell for row in list(csv.reader(file))[1:] for cell in row]
    assert not [cell for cell in shown if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


@given(st.text(alphabet="'=+-@\ta", max_size=6))
def test_the_mark_before_a_formula_can_always_be_taken_back(cell: str) -> None:
    assert as_written(as_text(cell)) == cell


# ----------------------------------------------------------------------------------- archives


def tar_of(*members: tuple[str, bytes, bytes]) -> bytes:
    """An archive of (name, kind, content or where a link points)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def ids_in(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    return [report.id for report in text_folder.read(Source(path=path))]


def test_a_tar_with_paths_outside_and_links(tmp_path: Path) -> None:
    """Nothing is unpacked, so that paths are mere names; links are no reports."""
    content = tar_of(
        ("../../up.txt", tarfile.REGTYPE, REPORT),
        ("/etc/root.txt", tarfile.REGTYPE, REPORT),
        ("link.txt", tarfile.SYMTYPE, b"/etc/passwd"),
        ("hard.txt", tarfile.LNKTYPE, b"/etc/root.txt"),
        ("pipe.txt", tarfile.FIFOTYPE, b""),
    )
    (tmp_path / "in").mkdir()
    assert ids_in(tmp_path / "in" / "a.tgz", content) == ["../../up", "/etc/root"]
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.tgz"]


def zip_of(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def test_a_zip_with_paths_outside(tmp_path: Path) -> None:
    assert ids_in(tmp_path / "a.zip", zip_of(("../../up.txt", REPORT))) == ["../../up"]
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


def test_bombs_are_refused(tmp_path: Path) -> None:
    zeros = bytes(150_000_000)
    said = refusal(ids_in, tmp_path / "a.zip", zip_of(("a.txt", zeros)))
    assert said.startswith(f"{tmp_path / 'a.zip'}/a.txt: the content is over a hundred times")
    said = refusal(ids_in, tmp_path / "a.tgz", tar_of(("a.txt", tarfile.REGTYPE, zeros)))
    assert "over a hundred times" in said


def test_zips_that_cannot_be_unpacked_are_refused(tmp_path: Path) -> None:
    whole = zip_of(("a.txt", REPORT))
    central = whole.find(b"PK\x01\x02")
    for where, value in (((6, central + 8), 1), ((8, central + 10), 99), ((14, central + 16), 7)):
        damaged = bytearray(whole)  # encrypted; an unknown compression; another checksum
        for place in where:
            damaged[place] = value
        assert "that can be read" in refusal(ids_in, tmp_path / "a.zip", bytes(damaged))


ENTITIES = b"".join(b'<!ENTITY %c "%s">' % (98 + k, b"&%c;" % (97 + k) * 10) for k in range(9))


@pytest.mark.parametrize(
    "content",
    [
        b'<!DOCTYPE e [<!ENTITY a "lol">' + ENTITIES + b"]><e>&j;</e>",
        b'<!DOCTYPE e [<!ENTITY a SYSTEM "file:///etc/passwd">]><e>&a;</e>',
        b'<?xml version="1.0" encoding="none"?><e/>',
        b'<?xml version="1.0" encoding="utf-7"?><e/>',
        b"<e>\0</e>",
        b"<e>" * 100_000,
    ],
    ids=["laughs", "file", "encoding", "utf-7", "nul", "deep"],
)
def test_xml_that_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(tar_of(("1.xml", tarfile.REGTYPE, content)))
    assert refusal(openi.read, Source(path=path)).startswith(f"{path}/1.xml, line 1: ")


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "a/../../b.png"])
def test_an_image_outside_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "outside.png").write_bytes(b"x")
    row = {"id": "r1", "images": f"a.png;{name}"}
    (tmp_path / "images" / "a.png").write_bytes(b"x")
    said = refusal(image_files, row, "images", tmp_path / "images")
    assert said.startswith(f"report r1 names {name!r} in column 'images', which is not inside")


# ------------------------------------------------------------------------------------- models


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "model")


def accept(model: Path) -> Path:
    model_from_directory(model, ["model.safetensors"], False, model.parent / "copy")
    return model.parent / "copy"


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_safetensors_with_wrong_offsets_are_refused(model: Path) -> None:
    path = model / "model.safetensors"
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    first, second = [name for name in header if name != "__metadata__"][:2]
    bad = [
        {first: header[first] | {"data_offsets": [0, 10**9]}},
        {first: header[first] | {"data_offsets": header[second]["data_offsets"]}},
        {first: header[first] | {"shape": [2**40, 2**40]}},
    ]
    files = [json.dumps(header | values).encode() for values in bad]
    contents = [struct.pack("<Q", len(text)) + text + whole[8 + length :] for text in files]
    contents += [whole[:-10], whole + b"xx", struct.pack("<Q", 2**62) + b"{}", b""]
    for content in contents:
        path.write_bytes(content)
        assert refusal(accept, model).startswith(f"{path} is no whole safetensors file")


def test_a_model_without_one_of_its_weights_is_refused(model: Path) -> None:
    """transformers would draw it at random."""
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"layers.0.mlp.up_proj", b"layers.0.mlp.xx_proj"))
    copy = accept(model)
    said = refusal(load, copy)
    assert said.startswith(f"{copy} has no weights for model.layers.0.mlp.up_proj.weight")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}),
        ("tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["x"]}}),
    ],
)
def test_a_model_with_code_of_its_own_is_refused(
    model: Path, name: str, values: dict[str, object]
) -> None:
    (model / "own.py").write_text(f"open({str(model / 'ran')!r}, 'w')\n")
    change(model / name, **values)
    said = refusal(accept, model)
    assert f"(auto_map in {name})" in said
    assert "set trust_remote_code if you trust it" in said
    assert not (model / "ran").exists()


def test_pickled_weights_are_refused_with_advice(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "convert them once with save_pretrained" in refusal(accept, model)


# ------------------------------------------------------------------------------ configuration


def test_a_configuration_of_anchors_is_refused() -> None:
    """As YAML gives it: references, which only writing out makes many."""
    value: object = ["x"] * 10
    for _ in range(12):
        value = [value] * 10
    assert "over 10000 values" in refusal(resolve, {"model": value})
    itself: dict[str, object] = {}
    itself["model"] = itself
    assert "20 levels" in refusal(resolve, itself)

"""What programs that export tables do to them: marks, ids, separators, encodings, workbooks."""

import codecs
import datetime
import gzip
import json
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
from pandas._libs.parsers import STR_NA_VALUES
from pyarrow import parquet

from radquant.calibration.texts import read_texts
from radquant.corpus.formats import mimic_sectioned, mimic_tree, table
from radquant.corpus.formats.kind import Source
from radquant.corpus.marks import meant, missing_mark, same_id
from radquant.corpus.reports import Report
from radquant.corpus.tables import record
from radquant.errors import UserError

HEADER = "id,findings,impression\n"


def read(path: Path, content: str | bytes, **given: Any) -> list[Report]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    source = Source(path=path, **given)
    table.look(source)  # whatever can be read passes the look of a plan
    return table.read(source)


def refusal(path: Path, content: str | bytes, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(path, content, **given)
    said = str(caught.value)
    assert "\n" not in said
    assert "secret" not in said
    return said


# -------------------------------------------------------------------------------- missing values


@pytest.mark.parametrize(
    "mark",
    [
        *sorted(STR_NA_VALUES - {""}),
        "NULL ",
        "Null",
        "NaT",
        "(null)",
        "\\N",
        "#VALUE!",
        "undefined",
        "nan. nan.",
    ],
)
def test_what_exporters_write_for_no_value_is_none(mark: str) -> None:
    assert missing_mark(mark) in (mark.strip(), "NaN")


def test_marks_that_a_program_put_together_or_ended() -> None:
    written = ("NULL.", "N/A.", "null; null", "nan/nan", "<NA>\n<NA>")
    assert [*map(missing_mark, written)] == ["NULL", "N/A", "null", "NaN", "<NA>"]


@pytest.mark.parametrize(
    "text", ["None.", "none", "nil", "NA was low.", "Nan", "0", "-", "NULLIPARA", "na.", "Nano"]
)
def test_what_a_person_writes_is_no_mark(text: str) -> None:
    assert missing_mark(text) == ("Nan" if text == "Nan" else None)


def missing_everywhere(folder: Path) -> dict[str, Path]:
    """A table with no impression in its second report, as pandas writes each kind."""
    frame = pd.DataFrame({"id": ["a", "b"], "findings": ["One.", "Two."]}).astype(object)
    frame["impression"] = pd.Series(["Fine.", float("nan")], dtype=object)
    paths = {end: folder / f"t.{end}" for end in ("csv", "jsonl", "parquet", "xlsx")}
    frame.to_csv(paths["csv"], index=False, na_rep="NaN")
    paths["jsonl"].write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")))
    parquet.write_table(
        pa.table({**frame[["id", "findings"]], "impression": ["Fine.", "NaN"]}), paths["parquet"]
    )
    frame.to_excel(paths["xlsx"], index=False, na_rep="NaN")
    return paths


def test_a_missing_value_is_none_in_every_kind_of_table_and_counted(tmp_path: Path) -> None:
    for end, path in missing_everywhere(tmp_path).items():
        source = Source(path=path)
        assert [r.impression for r in table.read(source)] == ["Fine.", ""], end
        assert record(source.notes)["missing"] == {"impression": {"NaN": 1}}, end


def test_none_is_an_answer_in_a_comparison_alone(tmp_path: Path) -> None:
    (report,) = read(tmp_path / "t.csv", "id,findings,impression,comparison\n1,A,None,None\n")
    assert (report.impression, report.comparison) == ("", "None")


def test_a_missing_patient_is_unknown_and_not_one_patient(tmp_path: Path) -> None:
    rows = "id,patient_id,findings\n1,nan,a\n2,nan,b\n3,NULL,c\n4,-,d\n5,12.0,e\n6,12,f\n"
    assert [r.group for r in read(tmp_path / "t.csv", rows)] == ["", "", "", "", "12", "12"]


def test_a_text_that_was_put_together_from_missing_values(tmp_path: Path) -> None:
    text = "COMPARISON: None\nFINDINGS: nan\nIMPRESSION: None\n"
    (report,) = read(tmp_path / "t.jsonl", json.dumps({"id": 1, "text": text}))
    assert (report.comparison, report.findings, report.impression) == ("None", "", "")


def test_a_missing_text_for_calibration_is_none(tmp_path: Path) -> None:
    """All else of general texts stays as it is: they may be LaTeX."""
    (tmp_path / "t.jsonl").write_text('{"text": NaN}\n{"text": "a \\\\nabla b"}\n')
    assert [r["text"] for r in read_texts(tmp_path / "t.jsonl", "text")] == ["", "a \\nabla b"]


# ----------------------------------------------------------------------------------- line breaks

WRITTEN = "FINDINGS:\nClear lungs.\nIMPRESSION:\nNormal."


@pytest.mark.parametrize(
    "mark",
    [
        *("_x000D_\n", "_x000d_", "_x000A_", "\v", "\x85", "\u2028", "\\n", "\\r\\n", "\\\\n"),
        *("<br>", "<BR/>", "<br />\n", "</p><p>", "&#10;", "&#xD;&#xA;", "&lt;br&gt;", "<CR><LF>"),
        *("\\.br\\", "\\.BR\\", "\\X0D0A\\", "\\X0A\\", "\\.sp\\", "~", "\\u000a", "\\x0A"),
    ],
    ids=ascii,
)
def test_a_mark_for_a_line_break_is_one(tmp_path: Path, mark: str) -> None:
    rows = [{"id": "1", "text": WRITTEN.replace("\n", mark)}]
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(rows[0]))
    source = Source(path=path)
    (report,) = table.read(source)
    assert (report.findings, report.impression) == ("Clear lungs.", "Normal.")
    assert [line for line in report.text.split("\n") if line] == WRITTEN.split("\n")
    (counts,) = record(source.notes)["line breaks"].values()
    assert list(counts.values()) == [1]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Films in C:\\new\\chest.",
            "See \\\\nas01\\new\\film.",
            "Chest\\neck film.",
            "Smoker: y\\n",
        ),
        *("A and\\or B.", "PA\\lateral.", "Of ~5 mm and ~6 mm.", "AT&T, R&D; fine.", "1 < 2 <b"),
        *(
            "Line one.\nSee chest\\neck.",
            "x_000D_",
            "L\\R\\B, Y\\N\\U.",
            "w\\o contrast",
            "5 ~ 6",
            "5~6 mm, was 7~8 mm.",
            "About ~half, then ~third.",
            "a <5 mm> b",
        ),
    ],
)
def test_what_only_looks_like_a_mark_stays(text: str) -> None:
    assert meant(text) == text


def test_a_mark_behind_the_last_word_is_one() -> None:
    assert meant("Normal chest\\n") == "Normal chest\n"
    assert meant("A._x0009_B.") == "A.\nB."


def test_entities_are_characters() -> None:
    assert meant("Under &lt;5&nbsp;mm &amp; round") == "Under <5\u00a0mm & round"
    assert meant("A \\T\\ B\\.br\\\\.in+4\\C") == "A & B\nC"


# ------------------------------------------------------------------------------------------- ids


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        *(("123 ", "123"), ("\u00a0123\u200b", "123"), ("１２３", "123"), ("123.0", "123")),
        *(("Mu\u0308ller", "Müller"), ("A  1", "A 1"), ("\ufeffx", "x")),
        *(('="007"', "007"), ("'12", "12"), ("12,0", "12"), ("1,000", "1,000"), ("O'N", "O'N")),
        *(("007", "007"), ("1.2.0", "1.2.0"), ("12.50", "12.50"), ("a", "a"), ("", "")),
    ],
)
def test_ids_have_one_form(written: str, plain: str) -> None:
    assert same_id(written) == plain


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('id,findings\n1,a\n"1 ",b\n', "1 duplicate ids"),
        ("id,findings\n1.23457E+12,a\n", "row 2: column 'id' is a number that a spreadsheet short"),
        ('id,findings\n"a\tb\x01",x\n', "row 2: column 'id' holds a control character"),
        ("id,findings\n-,x\n", "row 2: the id is empty"),
    ],
)
def test_ids_that_cannot_be_are_refused(tmp_path: Path, content: str, said: str) -> None:
    assert said in refusal(tmp_path / "t.csv", content)


def test_a_split_file_as_pandas_writes_it(tmp_path: Path) -> None:
    """Its numbers with .0, or with MIMIC's letters."""
    folder = tmp_path / "files" / "p10" / "p10000"
    folder.mkdir(parents=True)
    for study in ("s50", "s51"):
        (folder / f"{study}.TXT").write_text("FINDINGS: A. IMPRESSION: B.")
    (tmp_path / "split.csv").write_text(
        "study_id;subject_id;split\n50.0;10000.0;train\nS51;P10000;test\n"
    )
    found = mimic_tree.read(Source(path=tmp_path / "files", split_file=tmp_path / "split.csv"))
    assert [(r.id, r.group, r.split) for r in found] == [
        ("s50", "p10000", "train"),
        ("s51", "p10000", "eval"),
    ]
    (tmp_path / "s.CSV").write_text("study,findings,impression\n50.0,NaN,Fine.\n")
    found = mimic_sectioned.read(Source(path=tmp_path / "s.CSV", split_file=tmp_path / "split.csv"))
    assert [(r.id, r.group, r.findings) for r in found] == [("s50", "p10000", "")]


# --------------------------------------------------------------------------------------- columns


def test_bytes_as_python_writes_them_are_text(tmp_path: Path) -> None:
    rows = pd.DataFrame({"id": [b"7"], "findings": [b"A.\nB's \xc3\xbc."], "impression": ["b'"]})
    rows.to_csv(tmp_path / "t.csv", index=False)
    (report,) = table.read(Source(path=tmp_path / "t.csv"))
    assert (report.id, report.findings, report.impression) == ("7", "A.\nB's ü.", "b'")


def test_names_of_columns_are_plain(tmp_path: Path) -> None:
    content = "\ufeff Study ID ,Patient-ID,FINDINGS, Impression,\n7,3,A.,B.,\n,,,,\n"
    (report,) = read(tmp_path / "t.csv", content)
    assert (report.id, report.group, report.findings, report.impression) == ("7", "3", "A.", "B.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("ID,Id,findings\n1,2,a\n", "has the columns ID, Id, which are nearly 'id'"),
        ("id,findings ,findings\n1,2,a\n", "two columns named 'findings'"),
        ("1,The secret lungs are clear and the heart is.,Fine.\n", "texts of 1, 4"),
        ("secret effusion\nNormal\n", "its columns are texts of 15 characters"),
        (HEADER + "1,a,b\n" + HEADER, "row 3 is the header again"),
    ],
)
def test_a_header_that_is_none(tmp_path: Path, content: str, said: str) -> None:
    assert said in refusal(tmp_path / "t.csv", content)


def test_a_table_of_many_columns_takes_seconds(tmp_path: Path) -> None:
    names = ",".join(f"c{number}" for number in range(30_000))
    rows = [f"{n},A {n}.,B.{',x' * 30_000}\n" for n in range(5)]
    started = time.process_time()
    found = read(tmp_path / "t.csv", f"id,findings,impression,{names}\n{''.join(rows)}")
    assert [r.findings for r in found] == [f"A {n}." for n in range(5)]
    said = refusal(tmp_path / "t.csv", f"{names}\n{'x,' * 29_999}x\n", columns={"text": "c"})
    assert "c19 and 29980 more" in said
    assert time.process_time() - started < 5  # it grew with the square: 20 s


# ---------------------------------------------------------------------- separators and encodings


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        ('id;findings;impression\n1;"a, b; c";d, e\n', "';'"),
        ("id\tfindings\timpression\n1\ta, b; c\td, e\n", "tab"),
        ("id|findings|impression\n1|a, b; c|d, e\n", "'|'"),
        ('id,findings,impression\n1,"a, b; c","d, e"\n', "','"),
        ('sep=;\r\nid;findings;impression\r\n1;"a, b; c";d, e\r\n', "';'"),
        ('"id";"findings, first";impression\n1;"a, b; c";d, e\n', "';'"),
    ],
)
def test_separators_are_recognised_and_said(tmp_path: Path, content: str, separator: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    columns = {"findings": "findings, first"} if "first" in content else {}
    source = Source(path=tmp_path / "t.csv", columns=columns)
    assert [(r.id, r.findings, r.impression) for r in table.read(source)] == [
        ("1", "a, b; c", "d, e")
    ]
    assert record(source.notes)["read as"] == {"t.csv": {f"utf-8, separated by {separator}": 1}}


def test_a_separator_that_is_said_decides(tmp_path: Path) -> None:
    content = "id,x;findings\n1,2;A.\n"
    assert "may be separated by ',' or ';'; say which" in refusal(tmp_path / "t.csv", content)
    (report,) = read(tmp_path / "t.csv", content, separator=";", columns={"id": "id,x"})
    assert (report.id, report.findings) == ("1,2", "A.")
    (one,) = read(tmp_path / "one.csv", "text\nFINDINGS: a | b; c. IMPRESSION: d.\n")
    assert one.findings == "a | b; c."
    (one,) = read(tmp_path / "one.tsv", "text\nFINDINGS: a, b. IMPRESSION: d.\n")
    assert one.findings == "a, b."


MEANT = "Größe “normal” – l’œdème à 5 µm, ½ señal"


@pytest.mark.parametrize(
    ("encoding", "mark", "said"),
    [
        ("utf-8", b"", "utf-8"),
        ("utf-8-sig", b"", "utf-8"),
        ("utf-16", b"", "utf-16"),
        ("utf-16-be", codecs.BOM_UTF16_BE, "utf-16"),
        ("utf-16-le", b"", "utf-16-le"),
        ("windows-1252", b"", "windows-1252"),
    ],
)
def test_encodings_are_recognised_and_said(
    tmp_path: Path, encoding: str, mark: bytes, said: str
) -> None:
    content = mark + f'{HEADER}1,"{MEANT}",b\n'.encode(encoding)
    for name, data in (("t.csv", content), ("t.csv.gz", gzip.compress(content, mtime=0))):
        (tmp_path / name).write_bytes(data)
        source = Source(path=tmp_path / name)
        assert table.read(source)[0].findings == MEANT
        assert record(source.notes)["read as"] == {name: {f"{said}, separated by ','": 1}}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe für", "cp850"),
        ("Größe", "mac-roman"),
        ("normalisé", "cp437"),
        ("Поражение", "cp1251"),
        ("Płuca żółć", "cp1250"),
        ("肺纹理清晰", "gbk"),
        ("肺野清明", "shift-jis"),
        ("폐 정상 소견", "euc-kr"),
    ],
)
def test_other_encodings_are_asked_for_and_then_read(
    tmp_path: Path, text: str, encoding: str
) -> None:
    content = f"{HEADER}1,{text},b\n".encode(encoding)
    assert "name its encoding as corpus.encoding" in refusal(tmp_path / "t.csv", content)
    assert read(tmp_path / "t.csv", content, encoding=encoding)[0].findings == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{HEADER}1,ü,b\n".encode() + b"2,\xfc,b\n", "two encodings: line 3 is not UTF-8 and lin"),
        (f"{HEADER}1,a,ü".encode()[:-1], "line 2: ends within a character"),
        (b"\xef\xbb\xbf" + HEADER.encode() + b"1,\xfc,b\n", "line 2: not UTF-8"),
        (b"PK\x03\x04 secret", "is a zip archive"),
        (gzip.compress(HEADER.encode(), mtime=0), "is packed by gzip; end its name in .gz"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 secret", "is an old Office file or has a password"),
        (b"MSH|^~\\&|A|secret\rPID|1\r", "is an HL7 message"),
        (b"<!DOCTYPE html><table>secret", "is HTML or XML"),
    ],
)
def test_what_is_no_table_of_text(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(tmp_path / "t.csv", content)


def test_an_encoding_that_is_said_is_kept_to(tmp_path: Path) -> None:
    said = refusal(tmp_path / "t.csv", f"{HEADER}1,ü,b\n".encode("latin-1"), encoding="utf-8")
    assert "line 2: not utf-8, which corpus.encoding names" in said


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("{\\rtf1\\ansi secret}", "is RTF; save it as plain text"),
        ("MSH|^~\\&|secret", "is an HL7 message"),
        ("PID|1\nOBX|1|TX|secret\n", "is an HL7 message"),
        ("<html>secret", "is HTML or XML"),
        ("secret</div>", "is HTML"),
        ("['secret.', 'secret.']", "is a list; make one text of it"),
        ("{'findings': 'secret'}", "is JSON; take the text out of it"),
        ("JVBERi0x" * 40, "is one word of 320 characters"),
    ],
)
def test_a_cell_that_is_no_plain_text_is_refused(tmp_path: Path, cell: str, said: str) -> None:
    content = json.dumps({"id": "1", "text": cell})
    found = refusal(tmp_path / "t.jsonl", content)
    assert found.startswith(f"{tmp_path / 't.jsonl'}, line 1: column 'text' {said}")


# ------------------------------------------------------------------------- JSON, Parquet, .xlsx


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", '[{"id": 1, "text": "secret"}]', "line 1: not a JSON object; each line must"),
        ("t.jsonl", '{\n "id": 1,\n "text": "secret"\n}', "line 1: not valid JSON; each line must"),
        ("t.jsonl", '{"id": 1, "text": Infinity}', "line 1: column 'text' is not text"),
        ("t.jsonl", '{"id": 9007199254740993.0, "text": "a"}', "'id' is a number that lost its"),
        ("t.jsonl", '{"id ": 1, "id": 2, "text": "a"}', "two columns named 'id'"),
        ("t.json", "[]", "make lines of it with jq"),
        ("t.xlsx", "secret", "is not a readable .xlsx file"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, name: str, content: str, said: str) -> None:
    assert said in refusal(tmp_path / name, content)


def test_a_record_of_json_may_lack_what_is_missing(tmp_path: Path) -> None:
    """As Spark writes them: the first record does not name all columns."""
    rows = [*({"id": n} for n in range(30)), {"id": 30, "findings": "A.", "impression": "B."}]
    found = read(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    assert [r.findings for r in found] == [""] * 30 + ["A."]


def test_what_says_nothing_of_a_table_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", [NAMES])
    for given in ({"separator": ";"}, {"encoding": "utf-8"}):
        with pytest.raises(UserError, match=r"t\.xlsx is no text; remove corpus\.separator"):
            table.look(Source(path=path, **given))
    said = refusal(tmp_path / "t.jsonl", '{"id": 1, "text": "a"}', separator=";")
    assert "has no cells to separate" in said


def test_values_of_parquet_are_text(tmp_path: Path) -> None:
    columns = {
        "id": pa.array([Decimal(1), Decimal(2)], pa.decimal128(38, 0)),
        "group": pa.array([7.0, None]),
        "study": pa.array([datetime.date(2020, 1, 2), None]),
        "my.findings": pa.array(["A.", None]).dictionary_encode(),
        "impression": pa.array(["B.", "NULL"], pa.large_string()),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    source = Source(path=tmp_path / "t.parquet", columns={"findings": "my.findings"})
    assert [(r.id, r.group, r.study, r.findings, r.impression) for r in table.read(source)] == [
        ("1", "7", "2020-01-02", "A.", "B."),
        ("2", "", "", "", ""),
    ]


def workbook(path: Path, *sheets: Sequence[Sequence[Any]], merge: str = "") -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for rows in sheets:
        sheet = book.create_sheet()
        for row in rows:
            sheet.append(row)
        if merge:
            sheet.merge_cells(merge)
    book.save(path)
    return path


NAMES = ["id", "group", "findings", "impression"]


def test_a_workbook_is_read(tmp_path: Path) -> None:
    rows = [NAMES, [1, 123, "A._x000D_\nB.", "C."], [], [2.0, "123 ", "#N/A", True], [None, None]]
    path = workbook(tmp_path / "t.XLSX", [], rows)
    found = table.read(Source(path=path))
    assert [(r.id, r.group, r.findings, r.impression) for r in found] == [
        ("1", "123", "A.\nB.", "C."),
        ("2", "123", "", "True"),
    ]
    assert found[1].where == f"{path}, row 4"


@pytest.mark.parametrize(
    ("sheets", "merge", "said"),
    [
        (([NAMES, [1, 2, "a", "b"]], [["x"]]), "", "holds 2 sheets with rows ('Sheet', 'Sheet1'"),
        (([NAMES, [1, 2, "a", "b"], [2, None, "c", "d"]],), "B2:B3", "the cells B2:B3 are merged"),
        (([NAMES, [1, 2, '=A1&"x"', "b"]],), "", "row 2: column 'findings' is a formula"),
        (([NAMES, [1.2345678901234567e17, 2, "a", "b"]],), "", "row 2: column 'id' is a number th"),
        (([["id", "txt"], [1, "a"]],), "", "has no column 'text'"),
        (([],), "", "is empty"),
    ],
)
def test_a_workbook_that_is_refused(
    tmp_path: Path, sheets: Sequence[Any], merge: str, said: str
) -> None:
    path = workbook(tmp_path / "t.xlsx", *sheets, merge=merge)
    with pytest.raises(UserError) as caught:
        table.read(Source(path=path))
    assert said in str(caught.value)

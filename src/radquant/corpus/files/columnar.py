"""Tables of Apache Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from radquant.corpus.files.header import check_names
from radquant.corpus.files.rows import Table, text_of
from radquant.errors import UserError


def read(path: Path) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        written = list(file.schema_arrow.names)
    except (pyarrow.ArrowException, OSError):
        raise UserError(f"{path} is not a readable Parquet file; fetch it again") from None
    columns = check_names(written, path)

    def rows(names: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        wanted = {written[columns.index(name)]: name for name in names}
        number = 0
        try:
            for batch in file.iter_batches(columns=list(wanted)):
                for record in batch.to_pylist():
                    number += 1
                    cells = {wanted[key]: text_of(cell) for key, cell in record.items()}
                    yield f"{path}, row {number}", cells
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError):
            raise UserError(
                f"{path}, after row {number}: the Parquet file is damaged; fetch it again"
            ) from None

    return Table(columns, rows)

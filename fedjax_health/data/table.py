"""Any CSV or Parquet file, described by a schema file, as a source."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
from __future__ import annotations

import os
import warnings

import pandas as pd
import pyarrow
import pyarrow.parquet

from fedjax_health.data.frames import require_columns, table_from_frame
from fedjax_health.data.log_file import header_of, records_of, require_once
from fedjax_health.data.schema import Schema, load_schema
from fedjax_health.data.source import Source
from fedjax_health.types import UserError

TASKS = ("diagnosis", "detection")
MISSING = ("", "NA", "N/A", "<NA>", "NaN", "nan", "NULL", "null", "None")


def load_table(path: str, schema_path: str, task: str) -> Source:
    """Reads a table of your own. Without a client column in the schema every row is a client of its own.

    Args:
      path: .csv, .csv.gz or .parquet file with one row a record; columns that the schema does not name are not read.
      schema_path: JSON file, see `schema_from_dict`.
      task: "diagnosis" or "detection".

    Returns:
      Source of all rows.

    Raises:
      UserError: a missing or unreadable file, an unknown task, or cells that break the schema.
    """
    if task not in TASKS:
        raise UserError(f"task {task!r} is unknown; use one of {', '.join(TASKS)}")
    schema = load_schema(schema_path)
    if os.path.isdir(path):
        raise UserError(f"{path!r} is a folder; give the CSV or Parquet file in it")
    if not os.path.isfile(path):
        raise UserError(f"data file {path!r} does not exist; give the path of a .csv, .csv.gz or .parquet file")
    if path.endswith((".csv", ".csv.gz")):
        frame = _read_csv(path, schema)
    elif path.endswith(".parquet"):
        frame = _read_parquet(path, schema)
    else:
        raise UserError(f"data file {path!r} has an unknown ending; convert it to .csv, .csv.gz or .parquet")
    client = schema.client.name if schema.client else ""
    frame, dropped = records_of(frame, [column.name for column in schema.columns], path, client)
    table, notes = table_from_frame(frame, schema, None, path)
    notes = (*dropped, *notes)
    if schema.client is None:
        notes = (f"The schema names no client column: each of the {len(frame):,} rows is a client of its own.", *notes)
    return Source(schema, task, table, notes)


def _read_csv(path: str, schema: Schema) -> pd.DataFrame:
    names = [column.name for column in schema.columns]
    # A category may be called "None" or "NA": what the code book knows is not missing.
    empty = {column.name: [word for word in MISSING if word not in column.categories] for column in schema.columns}
    text = {column.name: str for column in schema.columns if column.kind != "numeric" or column.role == "client"}
    try:
        header = header_of(path)
        require_once(header, path)
        require_columns(header, schema, path)
        with warnings.catch_warnings():
            # All columns are read, and a row of too many cells is an error: "97,5" for 97.5 would shift the others.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path, index_col=False, dtype=text, na_values=empty, keep_default_na=False, low_memory=False
            )
        return frame[names]
    except UserError:
        raise
    except (
        ValueError,
        OSError,
        EOFError,
        pd.errors.ParserWarning,
    ) as error:  # parser, encoding and decompression errors
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: not readable as CSV with commas and a header line ({reason}); correct the file"
        ) from error


def _read_parquet(path: str, schema: Schema) -> pd.DataFrame:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            require_columns(file.schema_arrow.names, schema, path)
            return file.read([column.name for column in schema.columns]).to_pandas()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not readable as Parquet ({error}); write the file again") from error

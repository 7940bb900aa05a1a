"""Any CSV or Parquet file as a frame: separator and decimal comma are found, what cannot be read is one sentence."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportReturnType=false
from __future__ import annotations

import codecs
import csv
import gzip
import os
import re
import warnings

import pandas as pd
import pyarrow
import pyarrow.parquet

from fedjax_health.data.log_file import require_once
from fedjax_health.data.schema import Schema
from fedjax_health.data.table import MISSING
from fedjax_health.types import UserError

ENDINGS = (".csv", ".csv.gz", ".tsv", ".txt", ".parquet")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LOOK = 1 << 16  # bytes in which separator and decimal comma are looked for
BLOCK = 1 << 20


def read_frame(path: str, schema: Schema | None = None, encoding: str = "utf-8") -> tuple[pd.DataFrame, list[str]]:
    """Reads one row a record; rows are numbered from 0 by the frame's index.

    Args:
      path: .csv, .csv.gz, .tsv, .txt (separated by commas, semicolons, tabs or bars, told from the header) or .parquet.
      schema: its categories and client ids are read as text, and a category called "NA" is not missing; None = as found.
      encoding: of a text file, such as "cp1252"; a byte-order mark is dropped.

    Returns:
      (frame, one sentence for each thing that was not as expected).

    Raises:
      UserError: no such file, no rows, another encoding (names row and byte), a column name twice, too many cells in a row.
    """
    if os.path.isdir(path):
        raise UserError(f"{path!r} is a folder; give the CSV or Parquet file in it")
    if not os.path.isfile(path):
        raise UserError(f"data file {path!r} does not exist; give the path of a file ending in {', '.join(ENDINGS)}")
    if not path.lower().endswith(ENDINGS):
        raise UserError(f"data file {path!r} has an unknown ending; convert it to one of {', '.join(ENDINGS)}")
    frame, notes = _parquet(path) if path.lower().endswith(".parquet") else _text(path, schema, encoding)
    if not len(frame):
        raise UserError(f"{path}: the file has a header and no rows; give a file with records")
    nameless = [name for name in frame.columns if not str(name).strip() or re.fullmatch(r"Unnamed: \d+", str(name))]
    if nameless:
        notes.append(f"{os.path.basename(path)}: a column without a name (an index that was saved, too) is not read.")
    return frame.drop(columns=nameless).rename(columns=str), notes


def _parquet(path: str) -> tuple[pd.DataFrame, list[str]]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            fields = file.schema_arrow
            require_once(fields.names, path)
            for field in fields:
                if pyarrow.types.is_nested(field.type):
                    raise UserError(
                        f"{path}: column {field.name!r} holds {field.type}, not one value a row; leave it out"
                    )
            return file.read().to_pandas().reset_index(drop=True), []
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not readable as Parquet ({error}); write the file again") from error


def _text(path: str, schema: Schema | None, encoding: str) -> tuple[pd.DataFrame, list[str]]:
    try:
        known = codecs.lookup(encoding).name
    except LookupError as error:
        raise UserError(f"--encoding={encoding} is not known; use one such as utf-8, cp1252 or latin-1") from error
    known = "utf-8-sig" if known == "utf-8" else known
    try:
        start = _start(path, known)
        separator, decimal = _separator(start), "."
        if separator == ";" and re.search(r"(^|;)\s*[+-]?\d+,\d+\s*(;|$)", start, re.M):
            decimal = ","
        columns = schema.columns if schema else ()
        empty = {c.name: [word for word in MISSING if word not in c.categories] for c in columns}
        names = next(csv.reader(start.splitlines(), delimiter=separator))
        require_once(names, path)
        with warnings.catch_warnings():
            # a row of too many cells is an error: "97,5" for 97.5 would shift the others
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=separator,
                decimal=decimal,
                encoding=known,
                index_col=False,
                dtype={c.name: str for c in columns if c.kind != "numeric" or c.role == "client"},
                na_values={name: empty.get(name, list(MISSING)) for name in names},
                keep_default_na=False,
                low_memory=False,
                skipinitialspace=True,
            )
    except UnicodeError as error:
        raise UserError(_undecodable(path, known)) from error
    except UserError:
        raise
    except (ValueError, OSError, EOFError, pd.errors.ParserWarning) as error:  # parser and decompression errors
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: not readable as a table with a header line ({reason}); correct the file, or write it again as CSV"
        ) from error
    name, notes = os.path.basename(path), []
    if separator != ",":
        notes.append(f"{name} is separated by {SEPARATORS[separator]}{', decimals by commas' * (decimal == ',')}.")
    return frame, notes


def _start(path: str, encoding: str) -> str:
    """The first lines as text.

    Raises:
      UserError: nothing but blanks in the file.
    """
    with _opened(path) as file:
        head = file.read(LOOK)
    # the last character may be cut in two
    text = codecs.getincrementaldecoder(encoding)().decode(head, len(head) < LOOK)
    if not text.strip():
        raise UserError(f"{path}: the file is empty; give a file with a header line and records")
    return text.lstrip("\r\n")


def _opened(path: str):
    return gzip.open(path, "rb") if path.lower().endswith(".gz") else open(path, "rb")


def _separator(start: str) -> str:
    """The separator that splits the header into the most cells, quotes respected."""
    header = start.splitlines()[0]
    return max(SEPARATORS, key=lambda s: len(next(csv.reader([header], delimiter=s))))


def _undecodable(path: str, encoding: str) -> str:
    """The sentence on the first bytes of a file that are not of an encoding."""
    decoder, row, at = codecs.getincrementaldecoder(encoding)(), 0, 0
    with _opened(path) as file:
        while True:
            block = file.read(BLOCK)
            try:
                row += decoder.decode(block, not block).count("\n")
            except UnicodeDecodeError as error:
                # the decoder puts what was left over from the last block in front
                before = error.object[: error.start]
                row, at = row + before.count(b"\n"), at + len(block) - len(error.object) + error.start
                wrong = error.object[error.start]
                break
            if not block:
                return f"{path}: not readable as {encoding}; say its encoding, such as --encoding=cp1252"
            at += len(block)
    where = f"row {row}" if row else "the header"
    return (
        f"{path}: {where} (byte {at}) holds the byte 0x{wrong:02X}, which is not {encoding.removesuffix('-sig').upper()}; save "
        "the file as UTF-8, or say its encoding, such as --encoding=cp1252"
    )

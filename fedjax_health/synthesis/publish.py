"""Writes synthetic tables with their schema; no client id, no key, no order of the training data goes out."""

from __future__ import annotations

import json
import os

from fedjax_health.data.frames import frame_from_table, write_frame
from fedjax_health.data.schema import Schema
from fedjax_health.files import write_text
from fedjax_health.synthesis.generator_file import public_schema
from fedjax_health.types import Table


def publish(folder: str, name: str, table: Table, schema: Schema) -> None:
    """Writes <name>.parquet and <name>.csv.

    Direct identifiers are removed by construction: the frame holds the schema's inputs and label only.

    Args:
      folder: the run's synthetic/ folder.
      name: "<domain>_<model>".
      table: synthetic records.
      schema: their columns.
    """
    os.makedirs(folder, exist_ok=True)
    frame = frame_from_table(table, schema)
    for ending in ("parquet", "csv"):
        write_frame(frame, os.path.join(folder, f"{name}.{ending}"))


def publish_schemas(folder: str, schemas: dict[str, Schema], models: tuple[str, ...]) -> None:
    """Writes schema.json (files and their schemas) and one <domain>.schema.json each, as configs/table.py reads it.

    Args:
      folder: the run's synthetic/ folder.
      schemas: domain to schema of the training data; a client-id column is left out.
      models: which models' tables stand beside.
    """
    public = {domain: public_schema(schema) for domain, schema in schemas.items()}
    files = {f"{domain}_{model}.{e}": domain for domain in public for model in models for e in ("parquet", "csv")}
    whole = {"files": files, "schemas": {domain: json.loads(s.to_json()) for domain, s in public.items()}}
    write_text(os.path.join(folder, "schema.json"), json.dumps(whole, indent=2) + "\n")
    for domain, schema in public.items():
        write_text(os.path.join(folder, f"{domain}.schema.json"), schema.to_json())

"""The figures of the paper's four tables, set among a run's lines as a reference."""

from __future__ import annotations

from fedjax_health.report.tables import Cell, Grid, Line

PAPER = {  # table -> row -> metric -> text
    "similarity": {
        "heart_rate": {"real_mean": "72.4 ± 10.5", "synthetic_mean": "71.8 ± 10.2", "welch_p": "0.43"},
        "glucose": {"real_mean": "110.3 ± 15.8", "synthetic_mean": "109.7 ± 15.2", "welch_p": "0.51"},
        "spo2": {"real_mean": "97.5 ± 1.6", "synthetic_mean": "97.3 ± 1.5", "welch_p": "0.38"},
    },
    "utility": {
        "real": {"accuracy": "0.925", "precision": "0.918", "recall": "0.930", "f1": "0.924"},
        "synthetic": {"accuracy": "0.901", "precision": "0.895", "recall": "0.907", "f1": "0.901"},
        "real+synthetic": {"accuracy": "0.932", "precision": "0.926", "recall": "0.938", "f1": "0.932"},
    },
    "membership": {
        "model-on-real": {"success (%)": "65"},
        "model-on-synthetic": {"success (%)": "52"},
        "federated+synthetic": {"success (%)": "48"},
    },
    "detection": {
        "real": {"detection_rate": "0.88", "false_positive_rate": "0.07"},
        "synthetic": {"detection_rate": "0.85", "false_positive_rate": "0.06"},
        "real+synthetic": {"detection_rate": "0.91", "false_positive_rate": "0.05"},
    },
}


def paper_line(table: str, row: str, columns: list[str]) -> Line | None:
    """The paper's line for a row, None where the paper has none.

    Args:
      table: "similarity", "utility", "membership" or "detection".
      row: the paper's row.
      columns: metrics of the grid.
    """
    known = PAPER[table].get(row.lower(), {})
    if not set(known) & set(columns):
        return None
    return Line(row, "paper", [Cell(known.get(c, "")) for c in columns], "", "paper")


def with_paper(grid: Grid, table: str) -> Grid:
    """A grid with the paper's line after the last line of each row that the paper has too.

    Args:
      grid: lines of one row stand together.
      table: as in `paper_line`.
    """
    lines = []
    for place, line in enumerate(grid.lines):
        lines.append(line)
        last = place + 1 == len(grid.lines) or grid.lines[place + 1].row != line.row
        reference = paper_line(table, line.row, grid.columns) if last else None
        if reference is not None:
            lines.append(reference)
    return grid._replace(lines=lines)

"""From raw columns to a data set whose rows are numbered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from nlp_finetune.data import ROW
from nlp_finetune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset


def free_name(taken: list[str]) -> str:
    """What a source's own column called `row` is renamed to."""
    name = ROW + "_"
    while name in taken:
        name += "_"
    return name


def renamed(name: str, where: str) -> str:
    """The note that tells of the renaming."""
    return f"{where}: its column '{ROW}' is called '{name}' here; '{ROW}' is the row number"


def from_table(table: pa.Table, *, path: str, fingerprint: str) -> tuple[Dataset, list[str]]:
    """Data set of a table with the int64 column `row` (1-based), and a note if that name was taken.

    The fingerprint is given, so that it depends on the content alone and caches keyed by it hold
    across processes.
    """
    import numpy as np
    from datasets import Dataset

    notes = []
    if ROW in table.column_names:
        name = free_name(table.column_names)
        table = table.rename_columns([name if old == ROW else old for old in table.column_names])
        notes.append(renamed(name, path))
    features = (table.schema.metadata or {}).get(b"huggingface")
    table = table.append_column(ROW, pa.array(np.arange(1, table.num_rows + 1)))
    # Other metadata (pandas' index, say) describes columns that may be gone.
    table = table.replace_schema_metadata({b"huggingface": features} if features else None)
    try:
        return Dataset(table, fingerprint=fingerprint), notes
    except (ValueError, TypeError, NotImplementedError, pa.ArrowException) as error:
        types = ", ".join(f"{field.name}: {field.type}" for field in table.schema)
        raise InputError(f"{path}: a column type that cannot be used ({error}). The columns are {types}.") from error


def number(rows: Dataset, *, where: str) -> tuple[Dataset, list[str]]:
    """The same for a data set that is one already."""
    import numpy as np

    notes = []
    if ROW in rows.column_names:
        name = free_name(rows.column_names)
        rows = rows.rename_column(ROW, name)
        notes.append(renamed(name, where))
    return rows.add_column(ROW, np.arange(1, len(rows) + 1)), notes

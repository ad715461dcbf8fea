"""Choose clips and subjects by a condition in DuckDB's SQL, which can read only the columns of rows."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import pyarrow as pa

from reprise.errors import ConfigError

_SELECT_CLIPS = "SELECT number FROM clips WHERE ({condition}\n)"
_SELECT_SUBJECTS = (
    "SELECT number, subject_id FROM (SELECT number, unnest(subject) FROM "
    "(SELECT number, unnest(subjects) AS subject FROM clips)) WHERE ({condition}\n)"
)


class RowCondition:
    """Two conditions that are checked once and applied to many tables. Use it in a `with` block.

    Args:
        clip: condition on the columns of a clip; None: all clips.
        subject: condition on the columns of a subject; None: all subjects.

    Raises:
        ConfigError: a text is not one SQL condition, names an unknown column, or reads more than the rows.
    """

    def __init__(self, clip: str | None, subject: str | None) -> None:
        self._clip, self._subject = clip, subject
        self._connection: Any = None
        if clip is not None or subject is not None:
            import duckdb  # optional dependency, in the extra `export`

            self._connection = duckdb.connect(":memory:")
            self._connection.execute("SET threads = 1")
            # An untrusted condition must not read files, load extensions or change these settings.
            self._connection.execute("SET enable_external_access = false")
            self._connection.execute("SET python_enable_replacements = false")
            self._connection.execute("SET lock_configuration = true")
            for key, text, query in (
                ("where", clip, _SELECT_CLIPS),
                ("where_subject", subject, _SELECT_SUBJECTS),
            ):
                if text is not None:
                    _check_condition(key, text, query)

    def __enter__(self) -> RowCondition:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def select(self, table: pa.Table) -> tuple[set[int] | None, set[tuple[int, str]] | None]:
        """Apply both conditions to rows.

        Args:
            table: rows of clips.

        Returns:
            The numbers of the rows that meet the condition on clips, and (number, subject_id) of the subjects
            that meet the condition on subjects. Each is None if its condition is None.
        """
        if self._connection is None:
            return None, None
        numbers = pa.array(range(table.num_rows), pa.int64())
        self._connection.register("clips", table.append_column("number", numbers))
        clips = self._run("where", self._clip, _SELECT_CLIPS)
        subjects = self._run("where_subject", self._subject, _SELECT_SUBJECTS)
        self._connection.unregister("clips")
        return (
            None if clips is None else {number for (number,) in clips},
            None if subjects is None else {(number, name) for number, name in subjects},
        )

    def _run(self, key: str, condition: str | None, query: str) -> list[tuple[Any, ...]] | None:
        import duckdb

        if condition is None:
            return None
        try:
            found: list[tuple[Any, ...]] = self._connection.execute(
                query.format(condition=condition)
            ).fetchall()
        except duckdb.Error as error:
            raise ConfigError(f"{key}: {_format_error(error)}") from error
        return found


def _check_condition(key: str, condition: str, query: str) -> None:
    """Check that a text is one condition, so that it cannot end the query and begin another one.

    Raises:
        ConfigError: the text is not one condition.
    """
    import duckdb

    try:
        statements = duckdb.extract_statements(query.format(condition=condition))
    except duckdb.Error as error:
        raise ConfigError(f"{key} is not an SQL condition: {_format_error(error)}") from error
    if len(statements) != 1 or str(statements[0].type).rpartition(".")[2] != "SELECT":
        raise ConfigError(
            f"{key} must be one condition, for example width >= 720, and not several statements"
        )


def _format_error(error: Exception) -> str:
    """Return the first line of DuckDB's message, and its suggestion of a column if there is one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    hint = next((line for line in lines[1:] if line.startswith(("Candidate", "Did you mean"))), "")
    return " ".join(part for part in (lines[0] if lines else type(error).__name__, hint) if part)

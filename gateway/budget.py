"""The memory of a SELECT, estimated from its rows and columns before arrays of them are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError
from tinyflux.columnar.base import TEXT_BYTES

if TYPE_CHECKING:
    from gateway.config import Settings
    from gateway.session import Session

# Measured: 10 million windows of one aggregate peak at 72 bytes a row, each further one adds 32.
# Values, their validity and the copy that the answer makes of them are in it.
_ROW_BYTES: Final = 40
_CELL_BYTES: Final = 32


def most_rows(n_columns: int, session: Session) -> int:
    """Return how many rows of so many columns a statement may make at most."""
    most_bytes = session.catalog.memory.work_bytes
    limit = session.settings.max_query_bytes
    return min(most_bytes, limit or most_bytes) // _row_bytes(n_columns)


def check_rows(n_rows: int, n_columns: int, session: Session, n_texts: int = 0) -> None:
    """Go on when so many rows fit, and claim memory for them.

    Args:
        n_rows: How many.
        n_columns: Of how many columns.
        session: Whose limits hold.
        n_texts: How many of the columns are texts that nothing else holds.

    Raises:
        StatementError: They are more than `max_query_bytes`.
        LimitExceeded: They are more than `memory_bytes` has room for.
    """
    needed = n_rows * (_row_bytes(n_columns) + TEXT_BYTES * n_texts)
    limit = session.settings.max_query_bytes
    if 0 < limit < needed:
        raise StatementError(
            f"max-query-bytes limit exceeded: {n_rows} rows of {n_columns} columns take about "
            f"{needed} bytes, the limit is {limit}: ask for a shorter time range, fewer "
            "fields or wider windows, or raise max_query_bytes"
        )
    session.claim.grow(needed)


def check_points(n_points: int, settings: Settings) -> None:
    """Go on when a SELECT may read so many points without aggregating them.

    Raises:
        StatementError: More than `max_select_points`.
    """
    most = settings.max_select_points
    if 0 < most < n_points:
        raise StatementError(
            f"max-select-point limit exceeded: ({n_points}/{most}): ask for a shorter time range, "
            "a LIMIT or aggregates, or raise max_select_points"
        )


def check_series(n_series: int, settings: Settings) -> None:
    """Go on when a SELECT may read so many series.

    Raises:
        StatementError: More than `max_select_series`.
    """
    most = settings.max_select_series
    if 0 < most < n_series:
        raise StatementError(
            f"max-select-series limit exceeded: ({n_series}/{most}): ask for fewer by their tags, "
            "or raise max_select_series"
        )


def check_windows(n_windows: int, settings: Settings) -> None:
    """Go on when a SELECT may answer so many windows, those of all groups together.

    Raises:
        StatementError: More than `max_select_buckets`.
    """
    most = settings.max_select_buckets
    if 0 < most < n_windows:
        raise StatementError(
            f"max-select-buckets limit exceeded: ({n_windows}/{most}): ask for wider windows, "
            "a shorter time range (with a lower and an upper bound), fewer groups or fill(none), "
            "or raise max_select_buckets"
        )


def _row_bytes(n_columns: int) -> int:
    return _ROW_BYTES + _CELL_BYTES * n_columns

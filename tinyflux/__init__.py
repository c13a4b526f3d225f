"""TinyFlux: an embeddable time series database.

    database    TinyFlux, the database          measurement   Measurement, one name of it
    point       Point, TypedPoint               queries       TagQuery, FieldQuery, ...
    storages    Storage, CSV, memory            columnar      columnar storages, Parquet
    index       what an open database knows     batch         PointBatch, points as arrays
    windows, kernels                            functions over windows of time

How a question reaches the points: database -> operations (may it?) -> access (by which way?) ->
matching over columns (Memory, CSV), pushdown (columnar), or a scan (everybody else). What `update`
does is in changes; downsample and export go beyond the TinyFlux API.
"""

from __future__ import annotations

from tinyflux import storages
from tinyflux.batch import PointBatch
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.database import TinyFlux
from tinyflux.point import Point, TypedPoint
from tinyflux.queries import (
    FieldQuery,
    MeasurementQuery,
    TagQuery,
    TimeQuery,
    TypedFieldQuery,
)
from tinyflux.storages import CSVStorage, MemoryStorage, Storage
from tinyflux.version import __version__

__all__ = [
    "CSVStorage",
    "FieldQuery",
    "MeasurementQuery",
    "MemoryStorage",
    "ParquetStorage",
    "Point",
    "PointBatch",
    "Storage",
    "TagQuery",
    "TimeQuery",
    "TinyFlux",
    "TypedFieldQuery",
    "TypedPoint",
    "__version__",
    "storages",
]

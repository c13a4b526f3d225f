"""TinyFlux: an embeddable time series database.

database    TinyFlux, the database          measurement   Measurement, one name of it
point       Point, TypedPoint               queries       TagQuery, FieldQuery, ...
storages    Storage, CSV, memory            columnar      columnar storages, Parquet
index       what an open database knows     batch         PointBatch, points as arrays
access, matching, columns, pushdown         how a question reaches the points
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

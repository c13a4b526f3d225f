"""The columnar storage: typed arrays, write-ahead log, Parquet segments."""

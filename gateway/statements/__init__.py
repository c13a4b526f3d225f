"""Statements: from the tree of one to its tables. SELECT is `gateway.executor`; the rest is here.

    databases.py   CREATE, ALTER, DROP, SHOW of databases and retention policies
    schema.py      SHOW MEASUREMENTS, TAG KEYS, TAG VALUES, FIELD KEYS, SERIES
    cardinality.py SHOW ... CARDINALITY
    deletes.py     DELETE, DROP SERIES, DROP MEASUREMENT, DROP FIELD
    explain.py     EXPLAIN and EXPLAIN ANALYZE
    continuous.py  CREATE, DROP, SHOW, RUN of continuous queries
    subscriptions.py  CREATE, DROP, SHOW of subscriptions
    server.py      SHOW QUERIES, STATS, DIAGNOSTICS; KILL QUERY
    shards.py      SHOW SHARDS, SHOW SHARD GROUPS, DROP SHARD
    users.py       CREATE, DROP USER, SET PASSWORD, GRANT, REVOKE, SHOW USERS, GRANTS

`results_of` runs the statements of a request in order; an error stays in its own result.
"""

from __future__ import annotations

from gateway.statements.run import results_of

__all__ = ["results_of"]

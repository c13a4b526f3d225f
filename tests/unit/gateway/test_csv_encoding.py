"""CSV documents, byte for byte as influxd 1.6.7 answered them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.encoding.csv import CsvEncoder
from gateway.results import Result, Series
from tests.unit.gateway.tables import by_tag, every_type, failed, many_rows

if TYPE_CHECKING:
    from collections.abc import Iterable


def printed(results: Iterable[Result], epoch_ns: int = 0) -> str:
    return b"".join(CsvEncoder(epoch_ns).document(results)).decode()


def test_every_type_prints_as_influxd_prints_it() -> None:
    assert printed([Result(0, [every_type()])]) == (
        "name,tags,time,b,f,g,host,i,s\n"
        'm,,-1500000001,true,1,0.5,a,3,"x<>&é,""q"\n'
        "m,,1500000000000000000,,-0,123456789012345680,c d,,\n"
        "m,,1500000000123456789,,1000000000000000000000,0.0000001,b,,\n"
    )


def test_series_of_equal_columns_share_a_header_and_statements_do_not() -> None:
    results = [
        Result(0, [by_tag("a", 1, 1.0), by_tag("c d", 2, 2.0)]),
        Result(1),
        Result(2, [Series("databases", ["name"], [["d"]])]),
    ]
    assert printed(results) == (
        "name,tags,time,f\nm,host=a,1,1\nm,host=c\\ d,2,2\n\nname,tags,name\ndatabases,,d\n"
    )


def test_tags_share_one_cell_and_empty_ones_are_left_out() -> None:
    series = Series("m", ["f"], [[1]], {"a": "x", "b": "", "c": "y,z"})
    assert printed([Result(0, [series])]) == 'name,tags,f\nm,"a=x,c=y\\,z",1\n'


def test_columns_that_change_within_a_statement_get_a_new_header() -> None:
    tables = [Series("a", ["x"], [[1]]), Series("b", ["y"], [[2]])]
    assert printed([Result(0, tables)]) == "name,tags,x\na,,1\n\nname,tags,y\nb,,2\n"


def test_epoch_divides_the_times() -> None:
    assert printed([Result(0, [many_rows(2)])], 1_000_000_000).endswith("m,,0,0\nm,,1,0.5\n")


def test_error_of_a_statement_is_two_lines() -> None:
    results = [Result(0, [Series("a", ["x"], [[1]])]), failed(1, "a, b")]
    assert printed(results) == 'name,tags,x\na,,1\n\nerror\n"a, b"\n'


def test_request_error_is_two_lines() -> None:
    assert CsvEncoder().error("error parsing query") == b"error\nerror parsing query\n"

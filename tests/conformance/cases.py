"""The text format of conformance cases: `.case` files read and written, nothing sent.

A file is a preamble of comment lines, then cases, each behind a blank line:

    # What this file is about.
    # databases: t

    # two points of one series
    write db=t precision=s
    cpu,host=a v=1 1699999200
    ----
    204

    # mean without a time range is at 1970
    query db=t epoch=s
    SELECT mean(v) FROM cpu
    ----
    {"results":[{"statement_id":0,"series":[...]}]}

The first comment line of a case is its title, unique in the file. The command line holds
parameters of the request as key=value, quoted as in a shell where they hold blanks; `method` and
`accept` are not sent as parameters. The body ends at a line that starts with `----`, the answer
at a blank line before the next case. An answer may start with a line that is only the HTTP
status; without one it is 200. More comment lines mean something:

    # differs: why we answer otherwise on purpose
        the answer is then given twice, behind `---- influxd` and `---- ours`
    # any order
        rows of a series, and series, may come in any order, as where InfluxDB merges points of
        one time from a heap
    # within 1e-6
        numbers may be off by this part of them, where an optimiser found them

`tests/conformance/record.py` writes the answers, `test_cases.py` replays them.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SEPARATOR = "----"
DIFFERS = "differs: "
ANY_ORDER = "any order"
WITHIN = "within "
# Sums of floats may be taken in another order: last digits are not promised, the form is.
TOLERANCE = 1e-12
DATABASES = "databases:"


class CaseError(ValueError):
    """A `.case` file that cannot be read: path, line number and reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: the HTTP status and the body without its last line end."""

    status: int
    body: str

    def text(self) -> str:
        """Return the answer as a `.case` file holds it."""
        if self.status == 200 and self.body:
            return self.body
        return f"{self.status}\n{self.body}".rstrip("\n")


@dataclass(frozen=True, slots=True)
class Case:
    """One request and its answers.

    Attributes:
        title: The first comment line.
        notes: The further comment lines, in order.
        command: The line with kind and parameters, as written.
        body: Line protocol or InfluxQL, without the last line end.
        recorded: What InfluxDB said; None until it was recorded.
        ours: What we say where we differ on purpose, else None.
    """

    title: str
    notes: tuple[str, ...]
    command: str
    body: str
    recorded: Answer | None = None
    ours: Answer | None = None

    @property
    def kind(self) -> str:
        """Return `write` or `query`."""
        return self.command.split(maxsplit=1)[0]

    @property
    def params(self) -> dict[str, str]:
        """Return the parameters of the command line, `method` and `accept` among them."""
        pairs = (word.partition("=") for word in shlex.split(self.command)[1:])
        return {key: value for key, _, value in pairs}

    def note(self, start: str) -> str:
        """Return what follows the given words in a comment line, "" when no line has them."""
        found = (note for note in self.notes if note.startswith(start))
        return next(found, "").removeprefix(start)

    @property
    def differs(self) -> str:
        """Return why we answer otherwise than InfluxDB, "" where we do not."""
        return self.note(DIFFERS)

    @property
    def tolerance(self) -> float:
        """Return by which part of it a float may be off."""
        return float(self.note(WITHIN) or TOLERANCE)

    @property
    def any_order(self) -> bool:
        """Return whether rows and series may come in any order."""
        return ANY_ORDER in self.notes

    @property
    def expected(self) -> Answer | None:
        """Return what our server has to say."""
        return self.ours if self.differs else self.recorded

    def text(self) -> str:
        """Return the case as a file holds it, without the blank line behind it."""
        lines = [f"# {line}" for line in (self.title, *self.notes)]
        lines += [self.command, self.body]
        recorded = [self.recorded.text()] if self.recorded else []
        if not self.differs:
            return "\n".join([*lines, SEPARATOR, *recorded])
        ours = [self.ours.text()] if self.ours else []
        return "\n".join([*lines, f"{SEPARATOR} influxd", *recorded, f"{SEPARATOR} ours", *ours])


@dataclass(frozen=True, slots=True)
class CaseFile:
    """One topic: its cases run in order, on databases that are empty before the first.

    Attributes:
        path: Where it was read.
        preamble: The comment lines at the top.
        cases: In file order.
    """

    path: Path
    preamble: tuple[str, ...]
    cases: tuple[Case, ...]

    @property
    def databases(self) -> tuple[str, ...]:
        """Return the databases to create first; `t` unless the preamble names others."""
        for line in self.preamble:
            if line.startswith(DATABASES):
                return tuple(line.removeprefix(DATABASES).split())
        return ("t",)

    def with_cases(self, cases: Sequence[Case]) -> CaseFile:
        """Return the file with other cases."""
        return replace(self, cases=tuple(cases))

    def text(self) -> str:
        """Return the content of the file."""
        preamble = "".join(f"# {line}\n" for line in self.preamble)
        return "\n".join([preamble, *(case.text() + "\n" for case in self.cases)])

    def write(self) -> None:
        """Write the file where it was read."""
        self.path.write_bytes(self.text().encode("utf-8", "surrogateescape"))


def read_cases(path: Path) -> CaseFile:
    """Return the cases of a file. Bytes that are not UTF-8 come as lone surrogates.

    Raises:
        CaseError: The file does not follow the format, or two cases share a title.
    """
    lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    reader = _Reader(path, lines)
    preamble = tuple(reader.comments())
    cases = tuple(reader.cases())
    titles = [case.title for case in cases]
    for title in titles:
        if titles.count(title) > 1:
            raise CaseError(f"{path}: two cases have the title {title!r}")
    return CaseFile(path, preamble, cases)


class _Reader:
    """A position in the lines of a file."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self.path = path
        self.lines = lines
        self.at = 0

    def fail(self, reason: str) -> CaseError:
        return CaseError(f"{self.path}:{self.at + 1}: {reason}")

    def more(self) -> bool:
        return self.at < len(self.lines)

    def take(self) -> str:
        self.at += 1
        return self.lines[self.at - 1]

    def skip_blank(self) -> None:
        while self.more() and not self.lines[self.at]:
            self.at += 1

    def comments(self) -> Iterator[str]:
        while self.more() and self.lines[self.at].startswith("#"):
            yield self.take().removeprefix("#").removeprefix(" ")

    def cases(self) -> Iterator[Case]:
        self.skip_blank()
        while self.more():
            yield self.case()
            self.skip_blank()

    def case(self) -> Case:
        comments = tuple(self.comments())
        if not comments:
            raise self.fail("a case starts with a `# title` line")
        if not self.more() or self.lines[self.at].split(" ")[0] not in ("write", "query"):
            raise self.fail("expected a line that starts with write or query")
        case = Case(comments[0], comments[1:], self.take(), self.body())
        recorded = self.answer()
        if not case.differs:
            return replace(case, recorded=recorded)
        if self.more() and self.lines[self.at].startswith(SEPARATOR):
            self.at += 1
            return replace(case, recorded=recorded, ours=self.answer())
        return replace(case, recorded=recorded)

    def body(self) -> str:
        start = self.at
        while self.more():
            if self.take().startswith(SEPARATOR):
                return "\n".join(self.lines[start : self.at - 1])
        raise self.fail("the file ends inside a request")

    def answer(self) -> Answer | None:
        start = self.at
        while self.more() and not self.ends_here():
            self.at += 1
        lines = self.lines[start : self.at]
        if not lines:
            return None
        if lines[0].isascii() and lines[0].isdigit() and len(lines[0]) == 3:
            return Answer(int(lines[0]), "\n".join(lines[1:]))
        return Answer(200, "\n".join(lines))

    def ends_here(self) -> bool:
        # CSV has blank lines of its own: one ends the answer only before a case or the end.
        if self.lines[self.at].startswith(SEPARATOR):
            return True
        rest = self.lines[self.at : self.at + 2]
        return not rest[0] and (len(rest) == 1 or not rest[1] or rest[1].startswith("#"))

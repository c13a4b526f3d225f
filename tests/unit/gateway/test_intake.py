"""Bodies that go to the writer together, and their answers: no thread, no endpoint."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from gateway.errors import BadRequest, Overloaded
from gateway.intake import Exchange
from gateway.writer import MAX_TOGETHER_BYTES, Write, Writer

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from gateway.writer import Done


class Notebook:
    """Notes what a writer is given, and when: in which turn of the loop."""

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self.waiting: list[Done] = []
        self.is_full = False

    def submit(self, write: Write, done: Done) -> None:
        if self.is_full:
            raise Overloaded("full")
        self.given.append(write.body)
        self.waiting.append(done)

    def answer(self, error: Exception | None = None) -> None:
        """Answer all that wait."""
        waiting, self.waiting = self.waiting, []
        for done in waiting:
            done(error)


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


def exchange() -> tuple[Exchange, Notebook]:
    notebook = Notebook()
    return Exchange(cast("Writer", notebook)), notebook


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def stored(to: Exchange, notebook: Notebook, bodies: Sequence[bytes]) -> None:
    """Have bodies stored that are there at once."""
    answers = [to.stored(Write(body, "t")) for body in bodies]
    await turns(10)
    assert len(notebook.waiting) == len(bodies)
    notebook.answer()
    await asyncio.gather(*answers)


def test_client_alone_does_not_wait_for_others() -> None:
    async def test() -> None:
        to, notebook = exchange()
        for n in range(3):
            answer = to.stored(Write(b"%d" % n, "t"))
            assert len(notebook.waiting) == 1  # before any turn of the loop
            notebook.answer()
            await answer

    run(test())


def test_clients_that_were_answered_together_go_together_again() -> None:
    async def test() -> None:
        to, notebook = exchange()
        await stored(to, notebook, [b"1", b"2", b"3"])
        notebook.given.clear()
        answers = [to.stored(Write(b"1", "t"))]
        await asyncio.sleep(0)
        answers.append(to.stored(Write(b"2", "t")))
        await asyncio.sleep(0)
        assert not notebook.given
        answers.append(to.stored(Write(b"3", "t")))
        assert notebook.given == [b"1", b"2", b"3"]  # all are there: no turn more
        notebook.answer()
        await asyncio.gather(*answers)

    run(test())


def test_who_does_not_come_again_is_not_waited_for() -> None:
    async def test() -> None:
        to, notebook = exchange()
        await stored(to, notebook, [b"1", b"2", b"3"])
        notebook.given.clear()
        for n_turns in (10, 10, 0):  # forgotten by and by: at last there is only one
            answer = to.stored(Write(b"1", "t"))
            await turns(n_turns)
            assert len(notebook.waiting) == 1
            notebook.answer()
            await answer

    run(test())


def test_long_body_takes_along_what_waits_in_order() -> None:
    async def test() -> None:
        to, notebook = exchange()
        await stored(to, notebook, [b"1", b"2", b"3"])
        notebook.given.clear()
        long = b"x" * (MAX_TOGETHER_BYTES + 1)
        answers = [to.stored(Write(body, "t")) for body in (b"1", long)]
        assert notebook.given == [b"1", long]
        notebook.answer()
        await asyncio.gather(*answers)

    run(test())


def test_each_body_hears_its_own_answer_and_those_not_taken_hear_why() -> None:
    async def test() -> None:
        to, notebook = exchange()
        good, bad = to.stored(Write(b"1", "t")), to.stored(Write(b"2", "t"))
        await turns(10)
        notebook.waiting[0](None)
        notebook.waiting[1](BadRequest("bad"))
        await good
        with pytest.raises(BadRequest):
            await bad
        notebook.is_full = True
        for _ in range(2):
            with pytest.raises(Overloaded):
                await to.stored(Write(b"3", "t"))

    run(test())


def test_answer_that_nobody_waits_for_any_more_is_dropped() -> None:
    async def test() -> None:
        to, notebook = exchange()
        to.stored(Write(b"1", "t")).cancel()
        notebook.answer()
        await asyncio.sleep(0)
        await stored(to, notebook, [b"2"])

    run(test())

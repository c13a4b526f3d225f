"""Data for the benchmarks, the same at every run: bodies of line protocol.

`tsbs` is the cpu measurement of the Time Series Benchmark Suite: 10 tags, 10 integer fields, one
line a host and ten seconds. `telegraf` is what an agent sends for a host every ten seconds: 15
lines of cpu per core, mem, disk, diskio, net and system, whose field sets differ.
"""

from __future__ import annotations

import random
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

START_S = 1_700_000_000 // 3600 * 3600
INTERVAL_S = 10
LINES_PER_BODY = 5000

REGIONS = ("us-east-1", "us-west-1", "eu-west-1", "eu-central-1", "ap-south-1", "sa-east-1")
TSBS_FIELDS = (
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
)
CORES = ("cpu-total", "cpu0", "cpu1", "cpu2", "cpu3")


def times_s(hours: float) -> range:
    """Return the times of the points, in seconds."""
    return range(START_S, START_S + int(hours * 3600), INTERVAL_S)


def tsbs(hosts: int, hours: float) -> Iterator[str]:
    """Give the lines of a TSBS-like cpu measurement, in order of time."""
    rng = random.Random(1)
    heads = [_tsbs_head(rng, host) for host in range(hosts)]
    # Every host is a random walk in whole per cent, as in TSBS.
    walks = [[rng.randrange(101) for _ in TSBS_FIELDS] for _ in range(hosts)]
    steps = [max(-1, min(1, round(rng.gauss(0, 0.7)))) for _ in range(10_007)]
    at = 0
    for time_s in times_s(hours):
        for head, walk in zip(heads, walks, strict=True):
            for i, value in enumerate(walk):
                at = (at + 1) % len(steps)
                walk[i] = min(100, max(0, value + steps[at]))
            values = ",".join([f"{f}={v}i" for f, v in zip(TSBS_FIELDS, walk, strict=True)])
            yield f"{head} {values} {time_s}000000000"


def repeated_tsbs(hosts: int, hours: float) -> Iterator[str]:
    """Give the first hour of `tsbs` again and again: cheap to make, however long it is."""
    heads = [line.rpartition(" ")[0] for line in tsbs(hosts, 1)]
    for tick, time_s in enumerate(times_s(hours)):
        first = tick * hosts % len(heads)
        for head in heads[first : first + hosts]:
            yield f"{head} {time_s}000000000"


def _tsbs_head(rng: random.Random, host: int) -> str:
    region = rng.choice(REGIONS)
    return (
        f"cpu,hostname=host_{host},region={region},datacenter={region}{rng.choice('abc')},"
        f"rack={rng.randrange(100)},os=Ubuntu{rng.choice(('15.10', '16.04LTS', '16.10'))},"
        f"arch={rng.choice(('x64', 'x86'))},team={rng.choice(('SF', 'NYC', 'LON', 'CHI'))},"
        f"service={rng.randrange(20)},service_version={rng.randrange(2)},"
        f"service_environment={rng.choice(('production', 'staging', 'test'))}"
    )


def telegraf(hosts: int, hours: float) -> Iterator[str]:
    """Give the lines of Telegraf's default inputs for some hosts, in order of time."""
    rng = random.Random(2)
    noise = [rng.random() for _ in range(100_003)]
    for tick, time_s in enumerate(times_s(hours)):
        for host in range(hosts):
            at = (tick * hosts + host) * 61 % (len(noise) - 64)
            for line in _telegraf_host(f"host=server{host:02}", tick, noise[at : at + 64]):
                yield f"{line} {time_s}000000000"


def _telegraf_host(host: str, tick: int, n: list[float]) -> Iterator[str]:
    for i, core in enumerate(CORES):
        user, system, wait = 40 * n[i], 10 * n[i + 5], n[i + 10]
        yield (
            f"cpu,cpu={core},{host} usage_guest=0,usage_guest_nice=0,"
            f"usage_idle={100 - user - system - wait},usage_iowait={wait},usage_irq=0,"
            f"usage_nice=0,usage_softirq={n[i + 15] / 10},usage_steal=0,"
            f"usage_system={system},usage_user={user}"
        )
    used = int(8e9 * (0.3 + 0.4 * n[20]))
    yield (
        f"mem,{host} active={used // 2}i,available={16_000_000_000 - used}i,"
        f"available_percent={100 - used / 1.6e8},buffered=123456789i,cached={used // 3}i,"
        f"free={8_000_000_000 - used // 2}i,total=16000000000i,used={used}i,"
        f"used_percent={used / 1.6e8}"
    )
    for i, (path, device) in enumerate((("/", "sda1"), ("/home", "sda2"))):
        used = 40_000_000_000 + tick * 4096 + int(1e6 * n[21 + i])
        yield (
            f"disk,device={device},fstype=ext4,{host},mode=rw,path={path} "
            f"free={100_000_000_000 - used}i,inodes_free=6000000i,inodes_total=6553600i,"
            f"inodes_used=553600i,total=100000000000i,used={used}i,used_percent={used / 1e9}"
        )
        yield (
            f"diskio,{host},name={device} io_time={tick * 30 + int(9 * n[23 + i])}i,"
            f"read_bytes={tick * 1_000_003}i,reads={tick * 17}i,write_bytes={tick * 5_000_011}i,"
            f"writes={tick * 91}i"
        )
    for i, interface in enumerate(("eth0", "lo")):
        received = tick * 1_234_567 + int(1e5 * n[25 + i])
        yield (
            f"net,{host},interface={interface} bytes_recv={received}i,bytes_sent={received // 3}i,"
            f"drop_in=0i,drop_out=0i,err_in=0i,err_out=0i,packets_recv={received // 700}i,"
            f"packets_sent={received // 900}i"
        )
    yield (
        f"system,{host} load1={3 * n[27]:.2f},load15={2 * n[28]:.2f},load5={2.5 * n[29]:.2f},"
        f"n_cpus=4i,n_users={int(3 * n[30])}i"
    )
    yield f"system,{host} uptime={86400 + tick * INTERVAL_S}i"
    yield f'system,{host} uptime_format="1 day, {tick // 360:2}:{tick // 6 % 60:02}"'


def bodies(lines: Iterable[str], lines_per_body: int = LINES_PER_BODY) -> list[bytes]:
    """Return the lines as bodies of /write."""
    return list(each_body(lines, lines_per_body))


def each_body(lines: Iterable[str], lines_per_body: int = LINES_PER_BODY) -> Iterator[bytes]:
    """Give the lines as bodies of /write, one after another."""
    waiting = iter(lines)
    while batch := list(islice(waiting, lines_per_body)):
        yield "\n".join(batch).encode()


def few_floats(lines: Iterable[str]) -> Iterator[str]:
    """Give TSBS lines with floats of 16 digits, of which there are a hundred different ones."""
    return (_mapped(line, lambda value: value / 7 + 0.1) for line in lines)


def many_floats(lines: Iterable[str]) -> Iterator[str]:
    """Give TSBS lines with floats of 16 digits that never repeat: noise in the low bits."""
    rng = random.Random(3)
    return (_mapped(line, lambda value: value + rng.random()) for line in lines)


def _mapped(line: str, change: Callable[[int], float]) -> str:
    head, fields, time = line.rsplit(" ", 2)
    values = [int(field.partition("=")[2][:-1]) for field in fields.split(",")]
    pairs = zip(TSBS_FIELDS, values, strict=True)
    return f"{head} {','.join([f'{name}={change(value)!r}' for name, value in pairs])} {time}"


def lines_of(body: bytes) -> int:
    """Return how many lines a body holds."""
    return body.count(b"\n") + 1


def values_of(body: bytes) -> int:
    """Return how many field values a body holds."""
    lines = [line.split(b" ", 1) for line in body.split(b"\n")]
    return sum(rest.count(b"=") for _, rest in lines)

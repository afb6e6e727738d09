"""What is measured, and in which order. Promises: pure; rounds interleave the servers, so that a slow hour hits all.

A visit starts one server with one network, measures its capacity in a closed loop, then loads it at multiples of it. A
tuned server is only loaded, at the rates of the untuned one in the same round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tests.load.peers.servers import Server
from tests.load.peers.subjects import Subject

FACTORS = (0.5, 1.0, 1.5, 2.0)
LIMIT = "limit"  # decode, resize and run in one process and the fastest runtime, without a server
TIMEOUT_S = 10.0  # after which a client gives up
STARTING_LIMIT_S = 180.0
_CLOSED_WARM_UP_S = 2.0
_OPEN_WARM_UP_S = 1.0
_AROUND_S = 2.0  # client processes start, files are written
_ENDING_S = 3.0
_RUNTIMES = 2  # in which the limit is measured


@dataclass(frozen=True, slots=True)
class Load:
    """What the command line asks for; figures of different loads do not mix."""

    seconds: float = 10.0
    connections: int = 32
    objective_ms: float = 200.0
    factors: tuple[float, ...] = FACTORS
    decode: str = "saccade"
    processes: int = 1

    @property
    def closed_warm_up_s(self) -> float:
        return min(_CLOSED_WARM_UP_S, self.seconds)

    @property
    def open_warm_up_s(self) -> float:
        return min(_OPEN_WARM_UP_S, self.seconds)


@dataclass(frozen=True, slots=True)
class Place:
    """Which figure of the report. `factor` is 0 in a closed loop."""

    subject: str
    server: str
    round: int
    factor: float = 0.0

    @property
    def key(self) -> str:
        return "/".join(str(part) for part in asdict(self).values())


@dataclass(frozen=True, slots=True)
class Visit:
    """One start of one server; None: the limit."""

    subject: Subject
    server: Server | None
    round: int
    places: tuple[Place, ...]

    @property
    def name(self) -> str:
        return self.server.name if self.server is not None else LIMIT


def visits(subjects: Sequence[Subject], servers: Sequence[Server], rounds: int, load: Load) -> list[Visit]:
    """Every round begins with another server; tuned ones stay behind theirs."""
    families = [[server for server in servers if server.base == base] for base in _bases(servers)]
    planned: list[Visit] = []
    for number in range(1, rounds + 1):
        for subject in subjects:
            planned.append(Visit(subject, None, number, (Place(subject.name, LIMIT, number),)))
            shift = (number - 1) % max(1, len(families))
            for family in families[shift:] + families[:shift]:
                ordered = sorted(family, key=lambda each: each.is_tuned)
                planned += [Visit(subject, each, number, _places(subject, each, number, load)) for each in ordered]
    return planned


def _bases(servers: Sequence[Server]) -> list[str]:
    return list(dict.fromkeys(server.base for server in servers))


def _places(subject: Subject, server: Server, number: int, load: Load) -> tuple[Place, ...]:
    closed = () if server.is_tuned else (Place(subject.name, server.name, number),)
    return closed + tuple(Place(subject.name, server.name, number, factor) for factor in load.factors)


def open_visits(planned: Sequence[Visit], done: frozenset[str]) -> list[Visit]:
    """Those with something left to measure; a visit is repeated as a whole, since its rates follow its own capacity."""
    return [visit for visit in planned if any(place.key not in done for place in visit.places)]


def expected_s(visit: Visit, load: Load) -> float:
    """About how long a visit takes; an untuned server has to work off what it could not carry."""
    if visit.server is None:
        return _RUNTIMES * (1.5 * load.seconds + _ENDING_S)
    total = visit.server.starts_s + _ENDING_S + (load.closed_warm_up_s if visit.server.is_tuned else 0.0)
    for place in visit.places:
        warm_up_s = load.open_warm_up_s if place.factor else load.closed_warm_up_s
        backlog_s = 0.0 if visit.server.is_tuned else min(TIMEOUT_S, max(0.0, place.factor - 1.0) * load.seconds)
        total += warm_up_s + load.seconds + backlog_s + _AROUND_S
    return total


def longest_s(visit: Visit, load: Load) -> float:
    """After which a server is ended from outside."""
    each = load.closed_warm_up_s + load.seconds + TIMEOUT_S + 10 * _AROUND_S
    return STARTING_LIMIT_S + len(visit.places) * each

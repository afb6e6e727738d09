"""Whatever happens in whatever order: every step keeps what `Simulation` checks, and it settles in few steps."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from saccade.service.core import VersionKey
from saccade.service.supervisor.policy import ServingPolicy
from saccade.service.supervisor.state import Loading, NoRoom, Ready, Waiting
from tests.support.reconciling import A, B, Simulation

MODELS = st.sampled_from(["a", "b", "c"])
VERSIONS = st.integers(1, 4)
SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=3)


class Supervision(RuleBasedStateMachine):
    """Publishing, removing, crashing, asking and rolling back, in any order."""

    @initialize(policy=st.sampled_from(["replicate", "spread"]), on_demand=st.booleans(), most=st.integers(0, 2))
    def start(self, policy: str, on_demand: bool, most: int) -> None:
        loading = {"load_models": "on_demand" if on_demand else "all", "max_loaded_models": most, "pinned_models": "c"}
        self.story = Simulation(A, B, placement=policy, versions_per_model=1, **loading)

    @rule(model=MODELS, version=VERSIONS, sizes=SIZES, refused=st.booleans(), stamp=st.integers(0, 3))
    def publish(self, model: str, version: int, sizes: list[int], refused: bool, stamp: int) -> None:
        if VersionKey(model, version) not in self.story.observed.versions:
            self.story.publish(model, version, *sizes, stamp=stamp, refusal="tampered" if refused else "")

    @rule(model=MODELS, version=VERSIONS)
    def remove(self, model: str, version: int) -> None:
        self.story.found.pop(VersionKey(model, version), None)

    @rule(model=MODELS, version=VERSIONS)
    def hold(self, model: str, version: int) -> None:
        if VersionKey(model, version) in self.story.found:
            self.story.policies[model] = ServingPolicy(version, frozenset({version}))

    @rule(model=MODELS)
    def follow(self, model: str) -> None:
        self.story.policies.pop(model, None)

    @rule(model=MODELS, version=VERSIONS)
    def ask(self, model: str, version: int) -> None:
        self.story.observed.woken(VersionKey(model, version))

    @rule(model=MODELS, version=VERSIONS, in_flight=st.integers(0, 2), seconds=st.floats(0.0, 100.0))
    def use(self, model: str, version: int, in_flight: int, seconds: float) -> None:
        self.story.now_s += seconds
        self.story.use(VersionKey(model, version), in_flight)

    @rule(device=st.sampled_from([A, B]))
    def lose(self, device: str) -> None:
        self.story.lose(device)

    @rule(state=st.sampled_from(["ready", "failed", "warming"]))
    def finish(self, state: str) -> None:
        if self.story.orders and state == "warming":
            self.story.warm()
        elif self.story.orders:
            self.story.finish(state)

    @rule()
    def acknowledge(self) -> None:
        self.story.acknowledged = self.story.generation
        while self.story.unloads:
            self.story.observed.unloaded(self.story.unloads.pop())

    @rule()
    def step(self) -> None:
        self.story.step()

    @rule()
    def settle(self) -> None:
        self.story.settle()
        states = self.story.observed.instances.values()
        assert not any(isinstance(state, Loading) for state in states)
        assert self.story.is_waiting or not any(isinstance(state, Waiting) for state in states)

    @invariant()
    def numbers_are_used_once(self) -> None:
        if not hasattr(self, "story"):
            return
        states = self.story.observed.instances.values()
        numbers = [state.instance_id for state in states if isinstance(state, Loading | Ready)]
        assert len(numbers) == len(set(numbers))


Supervision.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSupervision = Supervision.TestCase


@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=8))
def test_memory_is_used_as_far_as_it_goes(sizes: list[int]) -> None:
    story = Simulation(A)
    keys = [story.publish(f"model-{number}", 1, size) for number, size in enumerate(sizes)]
    story.settle()

    free = 100 - sum(2 * sizes[number] for number, key in enumerate(keys) if key in story.answering())
    for slot, state in story.observed.instances.items():
        if isinstance(state, NoRoom):
            assert 2 * sizes[keys.index(slot.key)] > free

"""A supervisor's table with the shorthand that its tests read best in."""

from __future__ import annotations

from pathlib import Path

from saccade.service.core import VersionKey, VersionState
from saccade.service.ipc.messages import InstanceState, Load
from saccade.service.repository.open import FoundVersion
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.supervisor.version_entry import InstanceSpec
from saccade.service.supervisor.versions import VersionTable
from tests.support.versions import manifest_for


def key(version: int) -> VersionKey:
    return VersionKey("digits", version)


class Story:
    """A table with the shorthand these tests read best in."""

    def __init__(self) -> None:
        self.table = VersionTable()

    def add(self, *versions: int) -> None:
        for version in versions:
            self.table.add(FoundVersion(key(version), Path(f"digits/{version}"), ()))
            manifest = manifest_for("digits", version)
            verified = VerifiedVersion(manifest, f"digest-{version}", Path())
            self.table.verified(key(version), verified, (1, 2))
            self.desire(version, "cpu")

    def desire(self, version: int, device: str) -> None:
        self.table.desire(key(version), InstanceSpec(device, "fp32", "onnxruntime"))
        self.table.place(key(version), [device], {}, [])

    def load(self) -> Load:
        message = self.table.next_load("cpu")
        assert message is not None
        return message

    def report(self, instance_id: int, state: VersionState, reason: str = "") -> bool:
        update = InstanceState(instance_id, state.value, reason, "CPUExecutionProvider", 0.1)
        return self.table.report(update) is not None

    def bring_up(self) -> Load:
        message = self.load()
        assert self.report(message.instance_id, VersionState.READY)
        return message

    def states(self) -> dict[int, str]:
        return {status.version: status.state for status in self.table.statuses()}

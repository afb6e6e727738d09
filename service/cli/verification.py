"""Checks one version for `saccade repository verify`: looks at digests and signature both, and never raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saccade.service.errors import RepositoryError, SignatureRefused, UnsignedVersion
from saccade.service.repository.open import FoundVersion
from saccade.service.repository.report_agreement import ensure_masks
from saccade.service.repository.signature import read_signature
from saccade.service.repository.trusted_keys import SignaturePolicy
from saccade.service.repository.verify import manifest_bytes, verify_version

SignatureState = Literal["valid", "unchecked", "unsigned", "invalid"]


@dataclass(frozen=True, slots=True)
class Verification:
    """What a server with the same keys would find; `reason` is empty when it would serve the version."""

    model: str
    version: int
    reason: str
    signature: SignatureState
    key_id: str | None  # of the valid signature, or else as manifest.sig claims it

    @property
    def line(self) -> str:
        """The result in one line for people; the reason includes what is wrong with the signature."""
        signature = {
            "valid": f"signed by {self.key_id}",
            "unchecked": f"signed by {self.key_id}, not checked (no trusted key of this id)",
            "unsigned": "unsigned",
            "invalid": "signature invalid",
        }[self.signature]
        return f"{self.model}/{self.version}: {self.reason or 'verified'}; {signature}"


def verification_of(found: FoundVersion, policy: SignaturePolicy, incomplete: str | None = None) -> Verification:
    """Hashes every file, reads layers and masks, and checks the signature, whatever the result of the other checks.

    `incomplete` says why not all files are there; then the signature alone is checked.
    """
    reasons = [] if incomplete is None else [incomplete]
    try:
        if incomplete is None:
            ensure_masks(found.path, verify_version(found.path).manifest)
    except RepositoryError as error:
        reasons.append(str(error))
    state, key_id, refused = _signature_of(found, policy)
    return Verification(found.key.model, found.key.version, "; ".join([*reasons, *refused]), state, key_id)


def _signature_of(found: FoundVersion, policy: SignaturePolicy) -> tuple[SignatureState, str | None, list[str]]:
    try:
        claimed = read_signature(found.path)
    except UnsignedVersion as error:
        return "unsigned", None, [str(error)] if policy.is_required else []
    except SignatureRefused as error:
        return "invalid", None, [str(error)]
    if not policy.trusted:
        return "unchecked", claimed.key_id, []
    try:
        signed_by = policy.signer_of(found.path, manifest_bytes(found.path))
        return "unchecked" if signed_by is None else "valid", claimed.key_id, []
    except RepositoryError as error:
        # A missing manifest is reported by the check of digests already.
        return "invalid", claimed.key_id, [str(error)] if isinstance(error, SignatureRefused) else []

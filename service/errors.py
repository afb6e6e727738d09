"""Every failure the service can name; no HTTP in here (api/http/error_responses.py maps these once).

SaccadeError
├── BadRequest              the request itself is malformed
│   ├── UnsupportedMedia    a content type or image format we do not take
│   ├── PayloadTooLarge     more bytes than allowed
│   └── Unprocessable       well-formed, but cannot be worked on
│       ├── BadImage        undecodable, or more pixels than allowed
│       └── BadParameter    unknown, or outside its range
├── NotFound                model, version, label or path; the text names those that exist
├── Overloaded              no permit free; carries when to retry
├── Unavailable             cannot serve now; carries when to retry
│   ├── NotReady            still loading, or failed to load
│   │   └── NotLoaded       is loaded when a request asks for it
│   ├── Draining            shutting down
│   └── WorkerLost          the device worker died with the request
├── DeadlineExceeded        the deadline cannot be, or was not, met
├── ClientLeft              nobody waits for the answer any more
├── InferenceFailed         the backend refused this batch
│   └── NotFinite           the network's answer to one image holds what is no number
├── BackendError            a backend could not load or run
│   ├── RuntimeMissing      a library or a driver is not there, or too old
│   ├── PlanRefused         a TensorRT plan of another GPU, another TensorRT, another file, or damaged
│   └── OutOfDeviceMemory   the device has too little memory left; carries the figures
├── DeviceLost              the device can be used by another process only; the worker ends
├── RepositoryError         a version that must not be served
│   └── SignatureRefused    nobody who is trusted vouches for it
│       ├── UnsignedVersion     it has no manifest.sig
│       ├── UnknownSigner       the key is not among the trusted ones
│       ├── BadSignature        it is not of this manifest, or not by this key
│       └── DamagedSignature    manifest.sig cannot be read
├── BenchFailed              `saccade bench` could not measure: no server, or a client process that ended
└── SettingsError           refuses to start
"""

from __future__ import annotations


class SaccadeError(Exception):
    """Root of all named failures. The message is written for the reader of the answer."""


class BadRequest(SaccadeError):
    pass


class UnsupportedMedia(BadRequest):
    pass


class PayloadTooLarge(BadRequest):
    pass


class Unprocessable(BadRequest):
    pass


class BadImage(Unprocessable):
    pass


class BadParameter(Unprocessable):
    pass


class NotFound(SaccadeError):
    pass


class Overloaded(SaccadeError):
    """`what` ran out: a name from metrics.SHED_REASONS."""

    def __init__(self, message: str, retry_after_s: float, what: str) -> None:
        super().__init__(message)
        self.what = what
        self.retry_after_s = retry_after_s


class Unavailable(SaccadeError):
    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(Unavailable):
    pass


class NotLoaded(NotReady):
    """Carries the version to ask for."""

    def __init__(self, message: str, model: str, version: int) -> None:
        super().__init__(message)
        self.model = model
        self.version = version


class Draining(Unavailable):
    pass


class WorkerLost(Unavailable):
    pass


class DeadlineExceeded(SaccadeError):
    pass


class ClientLeft(SaccadeError):
    pass


class InferenceFailed(SaccadeError):
    pass


class NotFinite(InferenceFailed):
    pass


class BackendError(SaccadeError):
    pass


class RuntimeMissing(BackendError):
    pass


class PlanRefused(BackendError):
    pass


class OutOfDeviceMemory(BackendError):
    pass


class DeviceLost(SaccadeError):
    """A sticky CUDA error: every later call of this process fails as well."""


class RepositoryError(SaccadeError):
    pass


class SignatureRefused(RepositoryError):
    pass


class UnsignedVersion(SignatureRefused):
    pass


class UnknownSigner(SignatureRefused):
    pass


class BadSignature(SignatureRefused):
    pass


class DamagedSignature(SignatureRefused):
    pass


class BenchFailed(SaccadeError):
    pass


class SettingsError(SaccadeError):
    pass

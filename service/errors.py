"""Every failure that the service can name. `api/http/error_responses.py` alone maps them to HTTP.

SaccadeError
├── BadRequest              the request itself is malformed
│   ├── UnsupportedMedia    the content type or image format is not supported
│   │   └── UnsupportedEncoding    the content encoding is not supported
│   ├── PayloadTooLarge     the body has more bytes than allowed
│   └── Unprocessable       the request is well-formed, but cannot be served
│       ├── BadImage        the image cannot be decoded, or has more pixels than allowed
│       ├── PictureTooLarge the image has too many tiles, or its answer too many pixels or bytes
│       ├── NoDirection     the network's vector of the image is all zeros
│       ├── PoorPicture     the image is worse than those of its network, and the server refuses such
│       └── BadParameter    a parameter is unknown, or outside its range
├── NotFound                no such model, version, label or path; the text names those that exist
├── Overloaded              no slot is free, or the wait is too long; says when to retry
├── Unavailable             the server cannot serve the request now; says when to retry
│   ├── NotReady            the version is still loading, or failed to load
│   │   └── NotLoaded       the version is loaded because this request asks for it
│   ├── Draining            the server is shutting down
│   ├── WorkerLost          the device worker died while it had the request
│   └── DecoderLost         the process that decoded the image died
├── DeadlineExceeded        the deadline cannot be met, or was missed
├── ClientLeft              the client closed its connection before the answer
├── InferenceFailed         the backend failed on this image
│   └── NotFinite           the answer to this image holds something that is no finite number
├── BackendError            a backend could not load or run a model
│   ├── RuntimeMissing      a library or a driver is missing, or too old
│   ├── PlanRefused         a TensorRT plan is damaged, or made for another GPU, TensorRT or file
│   └── OutOfDeviceMemory   the device has too little memory left; the text gives the figures
├── DeviceLost              this process can no longer use the device, so the worker ends
├── RepositoryError         a version must not be served
│   └── SignatureRefused    no trusted key has signed the version
│       ├── UnsignedVersion     the version has no manifest.sig
│       ├── UnknownSigner       the signing key is not among the trusted ones
│       ├── BadSignature        the signature does not match the manifest or the key
│       └── DamagedSignature    manifest.sig cannot be read
├── BenchFailed             `saccade bench` could not measure: no server, or a client process ended
├── StartFailed             a child process broke off before it could serve
└── SettingsError           a setting is wrong, so the server does not start
"""

from __future__ import annotations


class SaccadeError(Exception):
    """Root of all named failures. Clients see the message in the answer."""


class BadRequest(SaccadeError):
    pass


class UnsupportedMedia(BadRequest):
    pass


class UnsupportedEncoding(UnsupportedMedia):
    pass


class PayloadTooLarge(BadRequest):
    pass


class Unprocessable(BadRequest):
    pass


class BadImage(Unprocessable):
    pass


class PictureTooLarge(Unprocessable):
    pass


class NoDirection(Unprocessable):
    pass


class PoorPicture(Unprocessable):
    pass


class BadParameter(Unprocessable):
    pass


class NotFound(SaccadeError):
    pass


class Overloaded(SaccadeError):
    """`what` names the reason of the refusal: one of metrics.SHED_REASONS."""

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
    """Names the version that is to be loaded."""

    def __init__(self, message: str, model: str, version: int) -> None:
        super().__init__(message)
        self.model = model
        self.version = version


class Draining(Unavailable):
    pass


class WorkerLost(Unavailable):
    pass


class DecoderLost(Unavailable):
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
    """A sticky CUDA error: every later CUDA call of this process would fail as well."""


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


class StartFailed(SaccadeError):
    pass


class SettingsError(SaccadeError):
    pass


def without_frames(error: SaccadeError) -> SaccadeError:
    """Returns the error without where it was raised: those frames hold the picture, and hold the error themselves."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error

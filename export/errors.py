"""Defines every failure that the exporter can name; each text says what was given, what is allowed and what to change.

ExportError
├── RecipeError        the recipe cannot be used; wrong usage, exit code 2
├── SourceError        the network or its weights cannot be loaded as the recipe says
├── DataRefused        calibration or evaluation data is missing, too small, or overlaps
├── GraphError         an ONNX graph lacks what the next step needs
├── PublishError       the repository cannot take the version
├── DeviceError        a plan cannot be built, opened or read on the device at hand
│   ├── DeviceMissing  there is no such device or runtime
│   └── BuildCancelled the caller cancelled the build
└── SigningError       a key cannot be used, or a version must not be signed
"""

from __future__ import annotations


class ExportError(Exception):
    """Is the root of all named failures; the program prints the text and exits with 1."""


class RecipeError(ExportError):
    pass


class SourceError(ExportError):
    pass


class DataRefused(ExportError):
    pass


class CalibrationTooSmall(ExportError):
    """Costs the variants that need activation ranges, and no others, as DataRefused would."""


class GraphError(ExportError):
    pass


class PublishError(ExportError):
    pass


class DeviceError(ExportError):
    pass


class DeviceMissing(DeviceError):
    pass


class BuildCancelled(DeviceError):
    pass


class SigningError(ExportError):
    pass

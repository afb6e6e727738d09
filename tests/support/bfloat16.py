"""Skips tests that run a network in bfloat16 where this machine cannot, with the reason that the product gives."""

from __future__ import annotations

import pytest

from saccade.service.backends.openvino_backend import why_absent

needs_bf16 = pytest.mark.skipif(bool(why_absent("bf16")), reason=why_absent("bf16") or "bfloat16 is there")

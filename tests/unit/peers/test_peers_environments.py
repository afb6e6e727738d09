"""What peers run of this project needs only packages that their environments have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "load" / "peers" / "requirements"
# As `tests/load/peers/apps/network.py` does; prints the distributions that this brought.
_IMPORTS = """
import sys
from importlib.metadata import packages_distributions
before = {*sys.modules}
from saccade.models.contract.preprocessing import preprocess
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.vision.image_decoder import ImageLimits, decode_image
found = packages_distributions()
tops = {name.partition(".")[0] for name in {*sys.modules} - before}
print(*sorted({each.lower().replace("_", "-") for top in tops for each in found.get(top, ())}))
"""


@pytest.fixture(scope="module")
def needed() -> set[str]:
    ran = subprocess.run([sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=True, timeout=60)
    return set(ran.stdout.split()) - {"saccade-serving"}


@pytest.mark.parametrize("file", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda file: file.stem)
def test_environment_has_what_our_decoder_imports(file: Path, needed: set[str]) -> None:
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in file.read_text("utf-8").split()}

    assert {"simplejpeg", "msgspec"} <= needed
    assert needed - pinned == set()

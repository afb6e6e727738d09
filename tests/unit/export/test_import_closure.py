"""Import closures and what steps are keyed by. Promises: a change anywhere below a step changes that step's digest."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from saccade.export.import_closure import Package, closure_digest, import_closure, own_packages
from saccade.export.recipe import load_recipe
from saccade.export.sources import source_of
from saccade.export.step_table import STEPS
from saccade.export.steps import StepContext
from saccade.models.contract.specs import TaskSpec
from saccade.models.networks.resnet import digits_classifier

ROOT = Path(__file__).parents[3]
FILES = {
    "__init__.py": "",
    "step.py": "from small.first import run\n",
    "first.py": '"""Prose that begins a line as\nimport does, in a docstring."""\n\nfrom . import (\n    second,\n)\n',
    "second.py": "def late() -> int:\n    from small.inner.third import CONSTANT\n\n    return CONSTANT\n",
    "inner/__init__.py": 'import json\n\nCHOICES = {"a": "small.chosen"}\n',
    "inner/third.py": "CONSTANT = 1\n",
    "chosen.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from .handed_in import Argument\n",
    "handed_in.py": "class Argument: ...\n",
    "unrelated.py": "import small.step\n",
}
# Runs one step as the pipeline does, in a process that has imported nothing else, and prints all that was loaded.
RUN_STEP = """
import sys
from importlib import import_module
from pathlib import Path

module, name, recipe_module, steps_module, recipe, out = sys.argv[1:]
loaded = import_module(recipe_module).load_recipe(Path(recipe))
context = import_module(steps_module).StepContext(
    loaded=loaded, variant=None, form="dense", out=Path(out), inputs={}, data=None, repository=Path(out), note=print
)
getattr(import_module(module), name)(context)
print(*sys.modules)
"""


def small_package(folder: Path, **changed: str) -> tuple[Package, ...]:
    for name, text in (FILES | {f"{stem}.py": text for stem, text in changed.items()}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return (Package("small", folder),)


def test_closure_follows_every_kind_of_import_and_nothing_else(tmp_path: Path) -> None:
    names = import_closure("small.step", small_package(tmp_path))

    ends = ("", ".chosen", ".first", ".handed_in", ".inner", ".inner.third", ".second", ".step")
    assert names == tuple(f"small{end}" for end in ends)


@pytest.mark.parametrize("changed", ["inner/third", "chosen", "handed_in", "step"])
def test_constant_three_imports_away_changes_the_digest(tmp_path: Path, changed: str) -> None:
    before = small_package(tmp_path / "before")
    after = small_package(tmp_path / "after", **{changed: f"{FILES[f'{changed}.py']}CONSTANT = 2\n"})

    assert closure_digest("small.step", before) != closure_digest("small.step", after)


def test_digest_is_the_same_wherever_the_package_lies_and_whatever_else_it_holds(tmp_path: Path) -> None:
    before = small_package(tmp_path / "before")
    after = small_package(tmp_path / "after", unrelated="CONSTANT = 2\n")

    assert closure_digest("small.step", before) == closure_digest("small.step", after)


def test_own_packages_are_named_as_they_are_imported() -> None:
    assert TaskSpec.__module__ in import_closure(TaskSpec.__module__, own_packages())


def test_modules_that_a_recipe_chooses_by_name_are_found() -> None:
    sources = Path(inspect.getfile(source_of)).parent.glob("*_source.py")
    names = {f"{source_of.__module__}.{path.stem}" for path in sources}

    loading = [step.run.__module__ for step in STEPS if step.name in ("wrap", "preprocess", "compress", "reference")]
    assert len(names) == 6
    assert len(loading) == 4
    assert all(names <= set(import_closure(module, own_packages())) for module in loading)


def test_all_that_a_real_step_loads_lies_in_its_closure(tmp_path: Path) -> None:
    run = next(step.run for step in STEPS if step.name == "wrap")
    recipe = ROOT / "models" / "recipes" / "digits-classifier.yaml"
    others = [load_recipe.__module__, StepContext.__module__]
    command = [sys.executable, "-c", RUN_STEP, run.__module__, run.__name__, *others, str(recipe), str(tmp_path)]

    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)

    packages = own_packages()
    loaded = {
        name
        for name in done.stdout.splitlines()[-1].split()
        if any(name == package.name or name.startswith(f"{package.name}.") for package in packages)
    }
    # The recipe names its factory, whose folder is digested as a part of the recipe's source.
    folder = digits_classifier.__module__.rpartition(".")[0]
    assert run.__module__ in loaded
    assert {name for name in loaded if not name.startswith(folder)} <= set(import_closure(run.__module__, packages))

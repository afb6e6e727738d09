"""Defines the program `saccade-export`, which exits with 0 on success, 1 on failure and 2 for wrong usage.

A command's module is imported when the command is used, because torch and the runtimes that most commands need take
seconds to import.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from saccade.export.cli.options import say_reading
from saccade.export.errors import ExportError, RecipeError
from saccade.service.errors import SaccadeError

FAILED, USAGE = 1, 2
_COMMANDS = {  # module and `--help` text by command name
    "init": ("sources", "Writes the recipe for a checkpoint, or updates it, and says what was understood."),
    "check": ("check", "Reads every picture of a recipe's data as the server would, and says what is wrong."),
    "run": ("run", "Exports recipes: check data, wrap, convert, quantize, qualify, gate, publish."),
    "step": ("run", "Runs one step of an export again."),
    "report": ("run", "Renders a report again."),
    "compare": ("compare", "Compares answers with those of the network's own library, or of an old pipeline."),
    "gate": ("gate", "Judges a report again."),
    "qualify": ("gate", "Settles pending variants of a published version on this device."),
    "build": ("build", "Builds TensorRT plans of a published version."),
    "triton": ("triton", "Writes a published version as a Triton model repository."),
    "recover": ("recover", "Trains compressed weights until they answer like the dense ones."),
    "clean": ("clean", "Removes what the work directory keeps of earlier runs, and says how many bytes that freed."),
    "sources": ("sources", "Lists the networks that recipes may name."),
    "keygen": ("signing", "Makes a pair of keys for signing versions."),
    "sign": ("signing", "Signs a published version."),
}


_READERS = ("init", "check", "run", "step", "compare", "gate", "qualify")
_FILES = (".yaml", ".yml", ".onnx", ".pt2", ".safetensors", ".json")


class _Commands(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Says what is read before the command's module is imported."""
        named = [each for each in args[1:] if not each.startswith("-")]
        files = [each for each in named if each.endswith(_FILES)]  # other words may be values of options
        if args[0] in _READERS and named and "--help" not in args:
            say_reading((files or named)[0])
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"saccade.export.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing their modules."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=_Commands)
def app() -> None:
    """Exports, gates and publishes trained networks."""


def main() -> None:
    """Runs the program; a known failure ends as one line on stderr, and what may be pasted stands below it."""
    try:
        app(standalone_mode=True)
    except RecipeError as error:
        print(f"saccade-export: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        raise SystemExit(USAGE) from error
    except (ExportError, SaccadeError, _manifest_error()) as error:
        print(f"saccade-export: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        raise SystemExit(FAILED) from error
    except OSError as error:
        if error.filename is None:  # not about a file of the user's
            raise
        print(f"saccade-export: {error.filename}: {error.strerror}", file=sys.stderr)
        raise SystemExit(FAILED) from error


def _manifest_error() -> type[Exception]:
    # imported here, once something failed: manifests import what takes longer than the first words of a command
    from saccade.models.contract.manifest import ManifestError

    return ManifestError

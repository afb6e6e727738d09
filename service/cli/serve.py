"""`saccade serve`: every setting is an option and a SACCADE_* variable; the option wins."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import click
from click.core import ParameterSource

from saccade.service.backends.onnxruntime_backend import ensure_onnxruntime_installed
from saccade.service.cli.effective_settings import effective_lines
from saccade.service.errors import SettingsError
from saccade.service.settings import PREFIX, Settings, core_count, settings_from
from saccade.service.vision.more_formats import opened_plugin


def _option(name: str) -> click.Option:
    """A click option for a setting. Its value stays text, because only `Settings` parses and refuses values."""
    field = Settings.model_fields[name]
    return click.Option(
        [f"--{name.replace('_', '-')}"],
        metavar="VALUE",
        default=None,
        help=f"{field.description} [{PREFIX}{name.upper()}; default: {field.default}]",
    )


@click.pass_context
def _serve(context: click.Context, /, print_config: bool, **options: Any) -> None:
    """Serves the model repository until SIGTERM or Ctrl-C. With `--log-level debug` there is an access log."""
    # Imported here: `saccade predict` and `--help` need no supervisor.
    from saccade.service.supervisor.process import serve as serve_until_signal

    given = {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    settings = settings_from(os.environ, given)
    if print_config:
        for line in effective_lines(settings, core_count()):
            click.echo(line)
        return
    if settings.backend in ("auto", "onnxruntime"):
        ensure_onnxruntime_installed()
    for name in sorted(settings.more_formats):
        opened_plugin(name)  # refuses to start, rather than each image later
    if settings.grpc_port and importlib.util.find_spec("grpc_reflection") is None:
        raise SettingsError("SACCADE_GRPC_PORT needs gRPC: pip install 'saccade-serving[grpc]'")
    serve_until_signal(settings, core_count())


serve = click.Command(
    "serve",
    callback=_serve,
    params=[
        *(_option(name) for name in Settings.model_fields),
        click.Option(["--print-config"], is_flag=True, help="print every setting and who chose it, and serve nothing"),
    ],
    help=_serve.__doc__,
)

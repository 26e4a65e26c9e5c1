"""The ``vrft-bench`` command: puts the verbs together, and is the one place where an error becomes an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Never

import typer

from vrft_bench import __version__
from vrft_bench.errors import DataError, ExitCode, UserError
from vrft_bench.harness.cli import audit, data, diagnose, doctor, ls, new, run, score, show, validate
from vrft_bench.harness.cli.printing import stderr
from vrft_bench.registry import VERBS

app = typer.Typer(
    name="vrft-bench",
    help="Evaluate vision-language models on visual perception tasks, each defined once: prompt, parser, verifiable "
    "reward and metric.\n\nWithout a verb, `vrft-bench --task NAME` means `vrft-bench run --task NAME`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("score")(score.score)
app.command("ls")(ls.ls)
app.command("show")(show.show)
app.command("validate")(validate.validate)
app.command("audit")(audit.audit)
app.command("diagnose")(diagnose.diagnose)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.add_typer(new.app, name="new")
for _verb, _target in VERBS.items():
    _module, _, _function = _target.partition(":")
    _added = getattr(importlib.import_module(_module), _function)
    if isinstance(_added, typer.Typer):
        app.add_typer(_added, name=_verb)
    else:
        app.command(_verb)(_added)

_APP_FLAGS = {"-h", "--help", "--version", "--install-completion", "--show-completion"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vrft-bench {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def arguments(argv: list[str]) -> list[str]:
    """``argv`` with the default verb put in, and ``--max_tokens`` spelled ``--max-tokens``."""
    spelled = []
    for index, argument in enumerate(argv):
        if argument == "--":
            spelled += argv[index:]
            break
        name, equals, value = argument.partition("=")
        spelled.append(name.replace("_", "-") + equals + value if name.startswith("--") else argument)
    if spelled and spelled[0].startswith("-") and spelled[0] not in _APP_FLAGS:
        return ["run", *spelled]
    return spelled


def main() -> Never:
    """Entry point of the console script. A user's mistake is one message; only --debug shows its traceback."""
    argv = arguments(sys.argv[1:])
    try:
        app(args=argv, prog_name="vrft-bench")
    except (UserError, OSError) as error:
        told = error if isinstance(error, UserError) else _about_file(error)
        if told is None or "--debug" in argv:
            raise
        stderr().print(f"[bold red]error:[/] {_escaped(told.message)}", highlight=False, soft_wrap=True)
        if told.fix:
            stderr().print(f"  [bold]fix:[/] {_escaped(told.fix)}", highlight=False, soft_wrap=True)
        sys.exit(told.exit_code)
    except KeyboardInterrupt:
        stderr().print("interrupted")
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(ExitCode.OK)


def _about_file(error: OSError) -> DataError | None:
    """What the system refused to do with a file or folder; ``None`` for an error that is about none."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    fix = (
        "get the right to it, or name another"
        if isinstance(error, PermissionError)
        else "--debug shows where it was asked for"
    )
    return DataError(f"{os.fsdecode(error.filename)}: {error.strerror}", fix=fix)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)

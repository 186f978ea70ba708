"""What does a user see when something goes wrong? One message, and the exit code of its class."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import typer

from hermes.errors import Defect, HermesError, of_the_machine

INTERRUPTED = 130
DEFECT = 1
USAGE = 2
"""Exit codes that no class of ours carries."""

REPORTS = 20
"""Reports of defects that are kept, the newest."""


def exit_code_of(error: BaseException) -> int:
    """Tell the user, and return the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, HermesError) and not isinstance(error, Defect):
        tell(error)
        return error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # of the option parser
        return _tell_usage(error)
    if type(error).__name__ == "Abort":  # the parser's, for Ctrl-C or the end of input at a prompt
        return INTERRUPTED
    refused = of_the_machine(error)
    if refused is not None:
        tell(refused)
        return refused.exit_code
    _tell_defect(error)
    return DEFECT


@contextlib.contextmanager
def interrupted_with(words: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C ends what is within, as ever, and these words say what there is of it."""
    try:
        yield
    except KeyboardInterrupt:
        note(words())
        raise


def tell(error: HermesError) -> None:
    """`error: WHERE: WHAT`, and the remedy below it."""
    say_error(str(error))


def say_error(text: str) -> None:
    """One message on stderr."""
    typer.echo(typer.style("error: ", fg="red", bold=True) + text, err=True)


def warn(text: str) -> None:
    """A warning on stderr."""
    typer.echo(typer.style("warning: ", fg="yellow", bold=True) + text, err=True)


def note(text: str) -> None:
    """Something that a person should know, on stderr."""
    typer.echo(text, err=True)


def _tell_usage(error: BaseException) -> int:
    message = getattr(error, "format_message", lambda: "")()
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # has printed the help as it was made
        return USAGE
    if not message.strip():
        typer.echo(context.get_help() if context is not None else "See: hermes --help", err=True)
        return USAGE
    command = context.command_path if context is not None else "hermes"
    message = _plainly(error) or _flagless(error) or message.strip().rstrip(".")
    say_error(f"{message[:1].lower()}{message[1:]}\n  See: {command} --help")
    return USAGE


def _flagless(error: BaseException) -> str:
    """Of an unknown flag that is an argument's name, as in `report --run ID`; else ""."""
    flag, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if flag is None or context is None:
        return ""
    before = context.command_path
    for one in context.command.params:
        if one.param_type_name == "argument" and one.nargs == 1:
            name = (one.metavar or one.name.upper()).strip("[]").split("|")[0]
            before = f"{before} {name}"
            if flag == f"--{one.name}":
                return f"{flag} is no flag: {name} is named without one ({before})"
    return ""


def _plainly(error: BaseException) -> str:
    """What is wrong with a flag's value, in our words; "" where the parser's own must do."""
    flag = next(iter(getattr(getattr(error, "param", None), "opts", ())), "")
    told = getattr(error.__cause__, "errors", None)
    if not flag or told is None:
        return ""
    found = told()[0]
    limits = found.get("ctx", {})
    wrong = {
        "int_parsing": "is no whole number",
        "int_parsing_size": "is out of range",
        "int_from_float": "is no whole number",
        "float_parsing": "is no number",
        "finite_number": "is no finite number",
        "greater_than_equal": f"is not {limits.get('ge')} or more",
        "less_than_equal": f"is more than {limits.get('le', 0):.16g}",
    }.get(found["type"], found["msg"].removeprefix(f"Value error, {found['input']!r} "))
    return f"{flag}: {found['input']!r} {wrong}".rstrip(".")


def _tell_defect(error: BaseException) -> None:
    text = " ".join(str(error).split())[:300]
    kind = "" if isinstance(error, HermesError) else f"{type(error).__name__}: "
    say_error(
        f"a defect of ours: {kind}{text}\n"
        f"  Please report it with this file: {_write_traceback(error)}"
    )


def _write_traceback(error: BaseException) -> str:
    from hermes.broker.places import state_folder

    story = "".join(traceback.format_exception(error))
    text = f"{' '.join(sys.argv)}\npython {sys.version}\n\n{story}"
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (state_folder() / "defects", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / (name if folder.name == "defects" else f"hermes-{name}")
            path.write_text(text, "utf-8")
        except OSError:
            continue
        if folder.name == "defects":
            from hermes.runtime.bounds import keep_newest

            keep_newest(folder.glob("*.txt"), REPORTS)
        return str(path)
    return f"(none could be written)\n{story}"

"""How does a command begin and end? Arguments in, an exit code out, and no traceback for users."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(args: Sequence[str] | None = None, program: str = "hermes") -> NoReturn:
    """Run one command (default: what the shell gave us) and leave with its exit code."""
    sys.exit(run(args, program))


def run(args: Sequence[str] | None = None, program: str = "hermes") -> int:
    """One command; its exit code. The only place where everything is caught."""
    from hermes.cli.trouble import exit_code_of

    try:
        from typer.main import get_command

        from hermes.cli.app import app

        code = get_command(app).main(args=args, prog_name=program, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt as error:
        return exit_code_of(error)
    except Exception as error:  # noqa: BLE001  (the boundary: what comes here is told, not raised)
        return exit_code_of(error)


def job_main(job: object) -> NoReturn:
    """`hermes.main(job)`: a master for the file that is being run, with the flags of
    `hermes master`.

    The file is read again and built afresh: workers get its text, not this process's objects.
    """
    from hermes.cli.trouble import exit_code_of
    from hermes.errors import JobError
    from hermes.job import Job

    file = getattr(sys.modules["__main__"], "__file__", None)
    if file == "<stdin>":
        file = None
    if file is None or not (isinstance(job, Job) or callable(job)):
        trouble = JobError(
            "hermes.main(job) runs the job of a file",
            where=file or "",
            remedy="End the file with: hermes.main(job), where job is its hermes.Job."
            if file
            else "What was typed here is known to this process alone, and workers build the job "
            "from a file's text: write it into a file that ends with hermes.main(job).",
        )
        sys.exit(exit_code_of(trouble))
    main(["master", *sys.argv[1:], file] if "--" not in sys.argv else _before_args(file))


def worker_main() -> NoReturn:
    """`hermes.worker_main()`: `hermes worker`, with the flags that the program was given."""
    main(["worker", *sys.argv[1:]])


def _before_args(file: str) -> list[str]:
    """The job's own arguments stay at the end, after `--`."""
    place = sys.argv.index("--")
    return ["master", *sys.argv[1:place], file, *sys.argv[place:]]

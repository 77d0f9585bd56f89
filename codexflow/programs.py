"""Command lines of the long-running programs (web, worker, beat), shared by `manage.py up` and the container.

`python -m codexflow.programs web` becomes that program (exec), so signals reach it directly.
"""

import os
import sys
from collections.abc import Sequence

from codexflow.env import Env, EnvError

# Added to the gateway's own shutdown, which ends running streams; uvicorn's timeout only cuts what is left.
WEB_STOP_MARGIN_S = 5
PROGRAMS = ("web", "worker", "beat")


def argv_of(name: str, env: Env) -> list[str]:
    """Build the command line of one of PROGRAMS for the current interpreter."""
    return [sys.executable, "-m", *{"web": _web, "worker": _worker, "beat": _beat}[name](env)]


def _web(_env: Env) -> list[str]:
    return ["codexflow.web", "codexflow.asgi:application"]


def _worker(_env: Env) -> list[str]:
    return ["codexflow.worker"]


def _beat(env: Env) -> list[str]:
    return ["codexflow.beat", str(env.home / "beat-schedule")]


def main(argv: Sequence[str]) -> int:
    """Become the named program; returns only when that is impossible.

    In production preflight comes first: a program that cannot serve says all that is wrong and ends with code 2.
    """
    if len(argv) != 1 or argv[0] not in PROGRAMS:
        sys.stderr.write(f"usage: python -m codexflow.programs {{{'|'.join(PROGRAMS)}}}\n")
        return 2
    environ = os.environ  # noqa: TID251 - the program's own settings are read after the exec
    try:
        env: Env | None = Env.read(environ)
    except EnvError as exc:
        env = None
        if exc.found.get("mode") != "production":
            sys.stderr.write(f"{exc}\n")
            return 2
    if env is None or env.is_production:
        # Only here: `manage.py up` imports this module and needs none of it.
        from codexflow.preflight.findings import errors_in, text_of
        from codexflow.preflight.run import PATIENCE_S, preflight

        findings = preflight(environ, patience_s=PATIENCE_S, serves_pages=argv[0] == "web")
        # Usage is stored and plans end whatever LiteLLM is: only the gateway refuses to start because of it.
        errors = [each for each in errors_in(findings) if argv[0] == "web" or each.part != "litellm"]
        if env is None or errors:
            sys.stderr.write(f"{text_of(errors)}\n")
            return 2
        for each in findings:
            if each.level != "ok":
                sys.stderr.write(f"{each.part}: {each.problem}. {each.remedy}\n")
    env.home.mkdir(mode=0o700, parents=True, exist_ok=True)  # beat keeps its schedule there
    program = argv_of(argv[0], env)
    return os.execv(program[0], program)  # noqa: S606 - argv is built here


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

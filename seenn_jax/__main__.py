"""python -m seenn_jax train | evaluate | predict | serve | import | export; also seenn-jax."""

import sys
from pathlib import Path

from seenn_jax.cli.start import ended_by_ctrl_c, say, start


def main() -> None:
    """Run the program that the first argument names."""
    called = Path(sys.argv[0]).name
    called = called if called == "seenn-jax" else "seenn_jax"
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    with ended_by_ctrl_c():
        from seenn_jax.cli.flags import PROGRAMS
    if name in PROGRAMS:
        sys.argv = [f"{called} {name}", *sys.argv[2:]]
        start(name)
    else:
        _no_program(name, called if called == "seenn-jax" else "python -m seenn_jax")


def _no_program(name: str, command: str) -> None:
    """Say what an argument asks for that is no program, or what is wrong with it."""
    from seenn_jax import __version__
    from seenn_jax.cli.flags import PROGRAMS
    from seenn_jax.cli.help import asked, of_programs

    if asked([name]) is not None:
        say(of_programs(command))
    elif name == "--version":
        say(f"seenn_jax {__version__}")
    else:
        wrong = f"{name!r} is no program" if name else "there is no program"
        print(
            f"error: {wrong}: give one of {', '.join(PROGRAMS)}, and --help for its flags",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()

"""python -m seenn_jax train | evaluate | predict; installed, seenn-jax."""

import sys
from pathlib import Path

from seenn_jax.cli.flags import PROGRAMS
from seenn_jax.cli.help import asked, of_programs
from seenn_jax.cli.start import say, start


def main() -> None:
    """Run the program that the first argument names."""
    called = Path(sys.argv[0]).name
    called = called if called == "seenn-jax" else "seenn_jax"
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in PROGRAMS:
        command = called if called == "seenn-jax" else "python -m seenn_jax"
        if asked(sys.argv[1:2]) is not None:
            say(of_programs(command))
            return
        print(
            f"error: give one of {', '.join(PROGRAMS)}, and --help for its flags", file=sys.stderr
        )
        sys.exit(2)
    sys.argv = [f"{called} {name}", *sys.argv[2:]]
    start(name)


if __name__ == "__main__":
    main()

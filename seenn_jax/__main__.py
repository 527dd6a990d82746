"""python -m seenn_jax train | evaluate | predict."""

import importlib
import sys

PROGRAMS = ("train", "evaluate", "predict")


def main() -> None:
    """Run the program that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else None
    if name not in PROGRAMS:
        print(
            f"error: give one of {', '.join(PROGRAMS)}, and --help for its flags", file=sys.stderr
        )
        sys.exit(2)
    sys.argv = [f"seenn_jax {name}", *sys.argv[2:]]
    importlib.import_module(f"seenn_jax.cli.{name}").main()


if __name__ == "__main__":
    main()

"""Config files by name: those of the working directory, and those that come with the package."""

import difflib
import sys
import types
from pathlib import Path

from seenn_jax.errors import UserError
from seenn_jax.paths import shipped

FOLDER = "configs"


def config_path(name: str) -> Path:
    """The config file that is meant by a path, or by a name such as "cifar10".

    A name, and a path such as configs/cifar10.py that is not there, are looked for in `configs/`,
    here and then in the package.

    Raises:
      UserError: there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    if name and path.parent in (Path(), Path(FOLDER)):
        for folder in _folders():
            if (folder / f"{path.stem}.py").is_file():
                return folder / f"{path.stem}.py"
    near = difflib.get_close_matches(path.stem, config_names(), n=1)
    hint = f"did you mean {near[0]!r}? Give" if near else "give"
    raise UserError(
        f"there is no config file {name!r}: {hint} the path of one, or a name of "
        f"{', '.join(config_names())}"
    )


def config_names() -> list[str]:
    """Of the config files here and in the package."""
    return sorted({each.stem for folder in _folders() for each in folder.glob("*.py")})


def _folders() -> tuple[Path, Path]:
    return Path(FOLDER), shipped(FOLDER)


def let_configs_inherit() -> None:
    """Let a config file `import configs.cifar10`, wherever it lies and whatever is here."""
    package = types.ModuleType(FOLDER)
    package.__path__ = [str(folder.resolve()) for folder in _folders()]
    sys.modules.setdefault(FOLDER, package)

"""What the programs share: flags in, and a user's mistake out as one sentence."""

import difflib
import errno
import functools
import io
import logging
import os
import re
import sys
from collections.abc import Callable
from operator import getitem
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from seenn_jax import hosts, provenance
from seenn_jax.cli import help
from seenn_jax.cli.configs import config_names, let_configs_inherit
from seenn_jax.cli.flags import Flag, define, renamed
from seenn_jax.cli.overrides import check_overrides, leaves, setting_meant, with_config_path
from seenn_jax.cli.start import command, exit_at_once, printable, say, silence
from seenn_jax.config import default_config
from seenn_jax.errors import Terminated, UserError, check_choice
from seenn_jax.run import folder

_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # as JAX says it
_OF_DISKS = (
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EROFS, errno.ENXIO),
    *(errno.ENODEV, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)
_LONG = 300  # characters of a word
FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk, or what one may have of it


def main(
    function: Callable[..., None],
    table: dict[str, Flag],
    *,
    config: str | None = None,
    arguments: bool = False,
    interrupted: str = "interrupted",
) -> None:
    """Parse the flags, run `function`, exit: 0, 2 after a mistake, 130 interrupted, 143 SIGTERM.

    Args:
      function: what the program does; it reads the flags.
      table: its flags.
      config: what `--config` is, where it has one.
      arguments: whether `function` takes a list of what is no flag.
      interrupted: what to say after Ctrl-C.
    """
    _set_streams_and_loggers()
    define(table)
    if config is not None:
        config_flags.DEFINE_config_file("config", None, config)
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS["config"])
    if help.asked(sys.argv[1:]) is not None:  # of a program that `start` does not start
        say("\n".join(help.of_flags(table)))
        return
    try:
        given = renamed(sys.argv[1:], table)
        if config is not None:
            let_configs_inherit()
            given = with_config_path(given)
        check_overrides(given)
        others = _parse([sys.argv[0], *given], [*table, *["config"] * (config is not None)])
        if others and not arguments:
            raise _unexpected(others[0], config is not None)
        _enable_compilation_cache()
        if "multihost" in table:
            _join_processes()
        _check_devices()
        function(*[others] * arguments)
    except (UserError, flags.Error) as error:
        _fail(as_flags(str(error), table))
    except BrokenPipeError:  # nobody reads on
        silence(sys.stdout)
    except (OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
        sentence = _of_system(error)
        if sentence is None:
            raise
        _fail(sentence)
    except Terminated as end:
        print(end.sentence, file=sys.stderr)
        if jax.distributed.is_initialized():
            jax.distributed.shutdown()  # waits for the others, which end too
        # On Python's way out it would wait for what is computed and is not needed any more.
        exit_at_once(int(end.code or 0))
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        # On Python's way out a thread of JAX's that still compiles would crash.
        exit_at_once(130)


def _of_system(error: Exception) -> str | None:
    """What a user can do about a file or the memory; None of a mistake of ours."""
    if isinstance(error, OSError):
        if error.errno in FULL:
            where = error.filename or "what is being written"
            return f"{where} has no room ({error.strerror}): make some, or choose another disk"
        if error.filename is None and error.errno in _OF_DISKS:
            return (
                f"a file can't be read or written any more ({error.strerror}): see whether its "
                "disk, or the network to it, is there, and start again"
            )
        if error.filename is None:
            return None
        return f"{error.filename}: {error.strerror}; mend that, or choose another path"
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY in str(error):
        return (
            f"there is not enough memory ({str(error) or 'of this machine'}): lower the number of "
            "images at a time (--config.batch_size, --slots), of timesteps or of channels"
        )
    return None


class _Printable(logging.Formatter):
    """Messages hold names of files and classes."""

    def format(self, record: logging.LogRecord) -> str:
        """The message."""
        return printable(super().format(record))


def _set_streams_and_loggers() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # and not what a notebook has
            stream.reconfigure(errors="backslashreplace")  # names of files that are no text
    # By force: some package that is imported has made a handler of its own by now.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.root.handlers[0].setFormatter(_Printable("%(message)s"))
    logging.getLogger("seenn_jax").setLevel(logging.INFO)
    # orbax tells of every file it writes, and of errors that come as exceptions too
    logging.getLogger("absl").setLevel(logging.CRITICAL + 1)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)  # orbax's, likewise
    sys.unraisablehook = functools.partial(_tell_unraisable, sys.unraisablehook)


def _tell_unraisable(tell: Callable[[Any], object], what: Any) -> None:
    """Leave out what TensorStore has for a loop of orbax's that has ended by an exception before.

    On a full disk each of many writes fails, and the first says it.
    """
    if str(what.exc_value) != "Event loop is closed":
        tell(what)


def as_flags(sentence: str, table: dict[str, Flag]) -> str:
    """A sentence of the package, as the command line says it.

    Its settings, which are in backticks, become the flags that set them, and its scripts what is
    called here.
    """

    def flag(match):
        name = match[1]
        return f"--{name}" if name in table or name.startswith("config.") else match[0]

    sentence = re.sub(r"`([\w.]+)`", flag, sentence)
    return re.sub(r"python (train|evaluate)\.py", lambda match: command(match[1]), sentence)


def _join_processes() -> None:
    """Join the processes of `--multihost`, and see that all have the same flags and versions.

    Raises:
      UserError: as `hosts.join`; one has other values of the script's flags.
    """
    wait = flags.FLAGS["wait"].value
    if not flags.FLAGS["multihost"].value:
        if wait is not None:
            raise UserError(f"`wait`={wait} goes with `multihost`: give that too, or leave it out")
        return
    hosts.join(hosts.PATIENCE if wait is None else wait)
    settings = {"revision": provenance.revision(), **provenance.versions()}
    for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]):
        if isinstance(flag.value, ConfigDict):
            settings |= {
                f"config.{key}": functools.reduce(getitem, key.split("."), flag.value)
                for key in leaves(flag.value)
            }
        else:
            settings[f"--{flag.name}"] = flag.value
    hosts.check_same(settings)


def _fail(sentence: str) -> NoReturn:
    words = [word if len(word) <= _LONG else _shortened(word) for word in sentence.split()]
    print(f"error: {printable(' '.join(words))}", file=sys.stderr)
    # On Python's way out libraries would tell of what the mistake has left undone, and one of
    # several processes would wait for the others, which may wait for it.
    exit_at_once(2)


def _shortened(word: str) -> str:
    """The beginning and the end of a value that nobody would read."""
    return f"{word[: _LONG // 2]}...({len(word):,} characters)...{word[-_LONG // 4 :]}"


def _parse(arguments: list[str], known: list[str]) -> list[str]:
    """Parse the flags and return what is no flag; absl's errors as a UserError."""
    flags.FLAGS.set_gnu_getopt()  # flags may follow what is none
    try:
        return flags.FLAGS(arguments)[1:]
    except flags.UnrecognizedFlagError as error:
        _check_setting(error.flagname, known)
        check_choice("flag", error.flagname, known)
        raise
    except flags.IllegalFlagValueError as error:
        what = re.match(r"flag --(?P<name>[^=]+)=(?P<value>.*?): ", str(error), re.DOTALL)
        if what is None:
            raise
        name, value = what["name"], what["value"]
        for argument in arguments:  # a value may have a colon
            given = argument.lstrip("-").removeprefix(f"{name}=")
            value = given if str(error).startswith(f"flag --{name}={given}: ") else value
        allowed = flags.FLAGS[name].parser.syntactic_help or "true or false"
        raise UserError(f"--{name} is {value!r}: it must be {allowed}; set it to one") from error


def _check_setting(flag: str, known: list[str]) -> None:
    """Raise a UserError for what may be meant for a setting of the config."""
    if "config" not in known or difflib.get_close_matches(flag, known, n=1):
        return
    setting = setting_meant(flag, leaves(default_config()))
    if setting:
        raise UserError(
            f"unknown flag {flag!r}: did you mean --config.{setting}? --help=config lists the "
            f"settings, and the flags are {', '.join(known)}"
        )


def _unexpected(argument: str, takes_config: bool) -> UserError:
    """What to do about an argument that is no flag."""
    hint = "flags look like --name=value"
    if takes_config and (argument.endswith(".py") or argument in config_names()):
        hint = f"give a config file as --config={argument}"
    elif not takes_config and (Path(argument) / folder.FILE).is_file():
        hint = f"give a run as --workdir={argument}"
    return UserError(f"unexpected argument {argument!r}: {hint}")


def _check_devices() -> None:
    """Raise a UserError where JAX_PLATFORMS asks for devices that are not there."""
    platforms = os.environ.get("JAX_PLATFORMS")
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where no plugin knows of them
        if not platforms:
            raise
        why = re.sub(r" \(set JAX_PLATFORMS.*", "", str(error).partition("\n")[0])
        why = why or "there are none"
        raise UserError(
            f"JAX_PLATFORMS={platforms} asks for devices that JAX does not find here ({why}): "
            "unset it, or install jax for them"
        ) from error


def _enable_compilation_cache() -> None:
    """Keep compiled programs, in JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    if not jax.config.jax_compilation_cache_dir:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "seenn_jax" / "xla"))
        # Small ones too: a start has dozens of them, which take longer than the large one.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

"""What `--help` says. Nothing slow is imported for it."""

import re
import shutil
import textwrap
from pathlib import Path

from seenn_jax.cli.flags import PROGRAMS, Flag

WIDTH = 100
_CONFIG = Path(__file__).parents[1] / "config.py"
_SETTING = re.compile(r" +config\.(?P<name>[\w.]+) = (?P<value>.*?)(  # (?P<remark>.*))?$")


def width() -> int:
    """Columns of the help: those of the terminal, 100 at most."""
    return min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)


def asked(arguments: list[str]) -> str | None:
    """What of the help is asked for: "config", "" for the program's, None for nothing."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in ("-h", "-help", "--help", "--helpshort", "--helpfull"):
            return value if value == "config" else ""
    return None


def of_program(name: str, command: str) -> str:
    """The help of a program that is called as `command`."""
    program = PROGRAMS[name]
    examples = {example.format(command): remark for example, remark in program.examples.items()}
    longest = max((len(each) for each, remark in examples.items() if remark), default=0)
    longest = min(longest, 64)
    lines = [
        program.about,
        "",
        *(f"  {each:{longest}}   {remark}".rstrip() for each, remark in examples.items()),
        "",
        f"usage: {command} [--FLAG=VALUE ...] {program.arguments}".rstrip(),
    ]
    table = dict(program.flags)
    if name == "train":
        table = {
            "config": Flag(str, "The run", "NAME|FILE", "of configs/, or a file of yours"),
            "config.KEY": Flag(str, "The run", "VALUE", "a setting; --help=config lists them"),
            **table,
        }
    return "\n".join([*lines, *of_flags(table)])


def of_flags(table: dict[str, Flag]) -> list[str]:
    """Lines about flags, by their group."""
    lines = []
    for group in dict.fromkeys(flag.group for flag in table.values()):
        lines.append(f"{group}:")
        for name, flag in table.items():
            if flag.group == group:
                shown = f"--{name}" + f"={flag.value}" * bool(flag.value)
                text = f"  {shown:25} {flag.help}"
                lines += textwrap.wrap(text, width(), subsequent_indent=" " * 28)
    return lines


def of_programs(command: str) -> str:
    """The help of all programs."""
    return "\n".join(
        [
            f"usage: {command} {' | '.join(PROGRAMS)}",
            "",
            *(f"  {command} {name:9} {program.about}" for name, program in PROGRAMS.items()),
            "",
            f"{command} PROGRAM --help has its flags, --help=config the settings of a config.",
        ]
    )


def of_config() -> str:
    """The settings with their defaults, and what config.py says of them."""
    lines = ["Settings of a config, with their defaults: --config.NAME=VALUE changes one."]
    for heading, settings in settings_by_group():
        lines += ["", heading]
        for name, value, remark in settings:
            shown = f"  --config.{name}={value}"
            gap = " " * max(2, 44 - len(shown))
            lines += textwrap.wrap(
                f"{shown}{gap}{remark}".rstrip(),
                width(),
                subsequent_indent=" " * 44,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def settings_by_group() -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(what a group is about, its settings as (name, default as written, remark)), as in config.py.

    It is read as text: its comments are what there is to say.
    """
    groups: list[tuple[str, list[tuple[str, str, str]]]] = []
    before: list[str] = []  # comments above a setting
    for line in _CONFIG.read_text().splitlines():
        words, setting = line.strip(), _SETTING.fullmatch(line)
        if words.startswith('"""') and words.endswith('"""') and line.startswith("    "):
            # The first is that of the config itself.
            groups.append((words.strip('"') if groups else "The experiment.", []))
        elif words.startswith("# "):
            before.append(words.removeprefix("# "))
        elif setting and not re.match(r"ConfigDict\(|config_dict\.", setting["value"]):
            remark = " ".join([*before, *filter(None, [setting["remark"]])])
            groups[-1][1].append((setting["name"], setting["value"], remark))
            before = []
        elif not setting:
            before = []
    return [(heading, settings) for heading, settings in groups if settings]

"""Tables: what can be chosen by name. A plugin adds rows to them (see `plugins`)."""

from typing import Any

from seenn_jax.errors import UserError, check_choice

ALL: dict[str, "Table"] = {}  # every table by its name


class Table(dict[str, Any]):
    """Rows by name; an unknown name is a UserError that lists the known ones, as is a taken one.

    Args:
      name: what the table is called in the code, such as "NEURONS".
      what: what a row is, in words.
      rows: the first rows.
    """

    def __init__(self, name: str, what: str, rows: dict[str, Any]):
        super().__init__(rows)
        self.what = what
        ALL[name] = self

    def __missing__(self, name: str) -> Any:
        check_choice(self.what, name, self)

    def __setitem__(self, name: str, row: Any) -> None:
        if name in self:
            raise UserError(f"the {self.what} {name!r} is there already: choose another name")
        super().__setitem__(name, row)

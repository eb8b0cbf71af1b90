"""``vmrelay top``: rooms, sessions and what they move, live in a terminal.

One screen: two lines about the relay, a table, and a line of keys. The table has one of several views
(``relay.admin.top_views``), each with columns by which it may be sorted; a filter leaves the rows in which a
text stands. What is shown is asked for in a thread, so that keys are answered while a relay is slow.

Texts are given to textual as they are, never as markup.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.app import App
from textual.binding import Binding
from textual.css.query import NoMatches
from textual.widgets import DataTable, Footer, Input, Static

from relay.admin.client import AskError
from relay.admin.top_views import (
    EVENTS,
    FLOWS,
    ROOMS,
    SESSIONS,
    VIEWS,
    Known,
    about_relay,
    about_session,
    plain,
)

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from relay.admin.live import Live
    from relay.admin.top_views import Column

MOST_ROWS = 500
"""Rows that are drawn: more than anybody scrolls through, and 0.1 s of work."""


class Top(App[None]):
    """The screen."""

    TITLE = "vmrelay top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #relay { height: 2; }
    #session { height: auto; display: none; color: $text-secondary; }
    #filter { height: 1; border: none; padding: 0; display: none; }
    #state { height: 1; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        # Before the table gets it: what is typed at once behind it is for the filter already.
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", show=False),
        Binding("i", "invert", show=False),
        Binding("p", "view('sessions')", "Peers"),
        Binding("r", "view('rooms')", "Rooms"),
        Binding("d", "view('drops')", "Drops"),
        Binding("e", "view('events')", "Events"),
        Binding("space", "pause", "Pause"),
        Binding("escape", "back", show=False),
        *(Binding(str(number), f"sort_by({number - 1})", show=False) for number in range(1, 10)),
    ]

    def __init__(self, live: Live, interval: float) -> None:
        super().__init__()
        self._known = Known()
        self._live = live
        self._interval = interval
        self._view = SESSIONS
        self._sorts = {view.name: (view.sort, view.reverse) for view in VIEWS.values()}
        self._port: int | None = None
        """The session whose flows are shown."""
        self._shown: list[Any] = []
        """Rows of the table; ``_found`` of them there would be."""
        self._found = 0
        self._keys: list[tuple[str, object]] = []
        """What the rows are known by, with the name of their view."""
        self._drawn: object = None
        """What the table was made of."""
        self._paused = False
        self._problem = ""
        self._wake = asyncio.Event()

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(id="relay")
        yield Static(id="session")
        yield DataTable[Text](cursor_type="row", zebra_stripes=True, cell_padding=1)
        yield Input(id="filter", placeholder="rows with this text; Enter keeps it, Escape takes it off")
        yield Static(id="state")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to look."""
        self.theme = "ansi-dark" if "ansi-dark" in self.available_themes else self.theme
        self.query_one(DataTable).focus()
        self.run_worker(self._keep_looking())

    # -- what is asked --------------------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        while True:
            if not self._paused:
                try:
                    await self._look()
                    self._problem = ""
                except AskError as error:
                    self._problem = str(error)
                try:
                    self._draw()
                except NoMatches:  # its end has begun while others were asked
                    return
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), self._interval)
            except TimeoutError:
                continue

    async def _look(self) -> None:
        known = self._known
        known.look = await asyncio.to_thread(self._live.look)
        session = None if self._port is None else known.look.session(self._port)
        if self._view is FLOWS:
            known.flows = [] if session is None else await asyncio.to_thread(self._live.flows, session)
        if self._view is EVENTS:
            known.events = await asyncio.to_thread(self._live.events)

    # -- what is shown --------------------------------------------------------------------------------

    def _draw(self) -> None:
        look = self._known.look
        self.query_one("#relay", Static).update(_text(*about_relay(look)))
        about = self.query_one("#session", Static)
        about.display = self._port is not None
        about.update(_text(*(() if self._port is None else about_session(look, self._port))))
        self._draw_table()
        self._draw_state()

    def _draw_table(self) -> None:
        table: DataTable[Text] = self.query_one(DataTable)
        at, keys = table.cursor_row, self._keys
        key = keys[at] if 0 <= at < len(keys) else None
        view, (number, reverse) = self._view, self._sorts[self._view.name]
        rows = view.chosen(self._known, self.query_one("#filter", Input).value, number, reverse=reverse)
        self._shown, self._found = rows[:MOST_ROWS], len(rows)
        cells = [[column.shown(row) for column in view.columns] for row in self._shown]
        if (drawn := (view.name, number, reverse, cells)) == self._drawn:
            return
        self._drawn = drawn
        across = table.scroll_offset.x
        table.clear(columns=True)
        for index, column in enumerate(view.columns):
            head = column.head + ("" if index != number else "▼" if reverse else "▲")
            width = max(len(head), *(cell_len(row[index]) for row in cells), 1)
            table.add_column(_in_column(head, column), width=width)
        for row in cells:
            table.add_row(*map(_in_column, row, view.columns))
        self._keys = [(self._view.name, self._view.key(row)) for row in self._shown]
        table.move_cursor(row=self._keys.index(key) if key in self._keys else 0, animate=False)
        table.scroll_to(x=across, animate=False)

    def _draw_state(self) -> None:
        number, reverse = self._sorts[self._view.name]
        of = self._view.columns[number].head
        sought = self.query_one("#filter", Input).value
        left_out = f", the first {MOST_ROWS} of them shown" if self._found > MOST_ROWS else ""
        parts = [
            f"{self._found} {self._view.name}{left_out}",
            f"by {of}, {'largest' if reverse else 'smallest'} first",
            *([f"with {sought!r}"] if sought else []),
            *(["PAUSED"] if self._paused else []),
            *(["Escape goes back"] if sought or self._view is not SESSIONS else []),
        ]
        state = _text("; ".join(parts), style="dim")
        if self._problem:
            state = _text(f"no answer, trying again: {self._problem}", style="bold red")
        self.query_one("#state", Static).update(state)

    # -- keys -----------------------------------------------------------------------------------------

    def action_view(self, name: str) -> None:
        """Show another kind of things."""
        self._view = VIEWS[name]
        self._port = None
        self._draw()
        self._wake.set()

    def action_sort(self, step: int) -> None:
        """Sort by the next column, or the one before."""
        number, _ = self._sorts[self._view.name]
        self.action_sort_by((number + step) % len(self._view.columns))

    def action_sort_by(self, number: int) -> None:
        """Sort by a column; numbers with the largest first, texts from A on. Once more turns it round."""
        if number >= len(self._view.columns):
            return
        before, reverse = self._sorts[self._view.name]
        turned = not reverse if number == before else self._view.columns[number].right
        self._sorts[self._view.name] = (number, turned)
        self._draw()

    def action_invert(self) -> None:
        """Turn the order round."""
        self.action_sort_by(self._sorts[self._view.name][0])

    def action_filter(self) -> None:
        """Ask for a text that rows must have."""
        asked = self.query_one("#filter", Input)
        asked.display = True
        self.screen.set_focus(asked)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Leave a slash to the filter while that is typed."""
        return action != "filter" or self.focused is not self.query_one("#filter", Input)

    def action_pause(self) -> None:
        """Look no more, or again."""
        self._paused = not self._paused
        self._draw()
        self._wake.set()

    async def action_back(self) -> None:
        """Leave the filter, else the session."""
        asked = self.query_one("#filter", Input)
        if asked.display or asked.value:
            asked.value = ""
            asked.display = False
            self.query_one(DataTable).focus()
            self._draw()
        else:
            self.action_view("sessions")

    def on_input_changed(self) -> None:
        """Filter while it is typed."""
        self._draw()

    def on_input_submitted(self) -> None:
        """Keep the filter, and go back to the table."""
        self.query_one("#filter", Input).display = False
        self.query_one(DataTable).focus()

    def on_data_table_row_selected(self, _: DataTable.RowSelected) -> None:
        """Show what is behind a row: a session's flows, a room's sessions."""
        at = self.query_one(DataTable).cursor_row
        if not 0 <= at < len(self._shown):
            return
        row = self._shown[at]
        asked = self.query_one("#filter", Input)
        if self._view is SESSIONS:
            self._port, self._known.flows = row.port, []
            self._view = FLOWS
            asked.value = ""
        elif self._view is ROOMS:
            self._view = SESSIONS
            asked.value = row["name"]
        self._draw()
        self._wake.set()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column that was clicked."""
        self.action_sort_by(event.column_index)


def _text(*lines: str, style: str = "") -> Text:
    return Text("\n".join(map(plain, lines)), style=style)


def _in_column(text: str, column: Column) -> Text:
    return Text(text, justify="right" if column.right else "left", no_wrap=True)

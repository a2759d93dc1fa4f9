"""Where a cell's output appears: a notebook, or streams that only take text. From any thread."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from jupyter_train.notebook.shown import Display

if TYPE_CHECKING:
    from jupyter_train.notebook.session import Session


class Stage(Protocol):
    """Where the cell shows something."""

    def text(self, stream: str, text: str) -> None:
        """Text for stdout or stderr."""

    def display(self, shown: Display) -> None:
        """A mime bundle, new or in the place of an older one."""

    def clear(self) -> None:
        """Take away all that stands under the cell, the live view too, once something follows."""


class TextStage:
    """Streams: displays are put in words, nothing can be taken back."""

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self._streams = {"stdout": stdout or sys.stdout, "stderr": stderr or sys.stderr}

    def text(self, stream: str, text: str) -> None:
        """See `Stage`."""
        self._streams[stream].write(text)
        self._streams[stream].flush()

    def display(self, shown: Display) -> None:
        """See `Stage`."""
        if text := shown.data.get("text/plain"):
            self.text("stdout", f"{text}\n")

    def clear(self) -> None:
        """See `Stage`."""


class NotebookStage(TextStage):
    """Under the cell that runs when this is made; the thread that shows has a copy of the cell's context."""

    def __init__(self, shell: Any) -> None:
        super().__init__()
        self._shell = shell
        self._count = int(getattr(shell.displayhook, "prompt_count", 0))

    def display(self, shown: Display) -> None:
        """See `Stage`."""
        publisher = self._shell.display_pub
        data, metadata = dict(shown.data), dict(shown.metadata)
        if shown.is_result and self._send_result(data, metadata):
            return
        transient = {} if shown.display_id is None else {"display_id": shown.display_id}
        publisher.publish(data, metadata, transient=transient, update=shown.update)

    def clear(self) -> None:
        """See `Stage`."""
        self._shell.display_pub.clear_output(wait=True)

    def _send_result(self, data: dict[str, Any], metadata: dict[str, Any]) -> bool:
        """Show ``data`` as the cell's own result, with its number; False where this kernel is of another make."""
        hook = self._shell.displayhook
        try:
            session, socket, topic = hook.session, hook.pub_socket, hook.topic
            parent = self._shell.display_pub.parent_header
        except AttributeError:
            return False
        sys.stdout.flush()
        sys.stderr.flush()
        content = {"execution_count": self._count, "data": data, "metadata": metadata}
        session.send(socket, "execute_result", content, parent=parent, ident=topic)
        return True


def new_stage(session: Session) -> Stage:
    """What the current cell can show its output on."""
    return NotebookStage(session.shell) if session.has_front_end else TextStage()

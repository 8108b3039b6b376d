"""Server-sent events as engines stream them: bytes in, the `data` of whole events out. Pure.

Of the format (WHATWG HTML §9.2.6) engines use little: `data` lines, comments to keep a connection open, and the blank
line after each event. Lines end in LF or CRLF; a CR alone, which the format allows as well, nobody sends. A line that
begins with `error:` counts as data, as older llama-server says what went wrong.
"""

from p2pos.errors import UnavailableError


class EventReader:
    """Cuts a stream of bytes into events.

    Args:
        max_bytes: of one event. What a server sends beyond it without an end is no event.

    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._held = 0
        """Bytes in `_data`."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came; give the data of the events that are whole now.

        Raises UnavailableError where an event is longer than it may be.
        """
        events: list[bytes] = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._line += line
            self._check()
            self._take(bytes(self._line).removesuffix(b"\r"), events)
            self._line.clear()
        self._line += rest
        self._check()
        return events

    def _take(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
            self._data, self._held = [], 0
            return
        field, _, value = line.partition(b":")
        if field in {b"data", b"error"}:
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._held += len(value) + 1

    def _check(self) -> None:
        if self._held + len(self._line) > self._max_bytes:
            raise UnavailableError(f"sent an event of more than {self._max_bytes} bytes")

"""What happened to texts whose route broke, told from the logs of a devnet's nodes. Pure.

The node that was asked for a text writes each step of a repair as a line of the component `failover`, with the text's
session. Here these lines are put together, a text at a time and in order, with the nodes' names in place of peer ids.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

LIFE_DIGITS = 8
"""The last hexadecimal digits of a session's name count its new beginnings; see `shard.owner`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a log."""

    text: str
    """What its session's names begin with."""
    at: datetime
    asked_of: str
    """The node that wrote it."""
    event: str
    fields: Mapping[str, Any]


def read(name: str, lines: Iterable[str]) -> tuple[str, list[Event]]:
    """A node's peer id ("" where its log doesn't say) and its events. Lines that are something else are passed over."""
    peer, events = "", []
    for line in lines:
        if '"failover"' not in line and '"listening"' not in line:
            continue
        try:
            found = json.loads(line)
            if found["event"] == "listening":
                peer = str(found["peer"])
            elif found["component"] == "failover":
                at = datetime.fromisoformat(found["timestamp"])
                events.append(Event(str(found["session"])[:-LIFE_DIGITS], at, name, str(found["event"]), found))
        except (ValueError, KeyError, TypeError):
            continue  # cut off, or of another program
    return peer, events


def tell(events: Iterable[Event], names: Mapping[str, str]) -> list[str]:
    """Lines for a person: each text's story, in the order in which they began.

    Args:
        events: of all nodes.
        names: of nodes, by peer id.

    """
    stories: dict[str, list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda each: each.at):
        stories[event.text].append(event)
    lines: list[str] = []
    for text, story in stories.items():
        lines.append(f"text {text[:8]}, asked of {story[0].asked_of}")
        before = None
        for each in story:
            gap_ms = 0 if before is None else round((each.at - before).total_seconds() * 1e3)
            when = f"{each.at:%H:%M:%S.%f}"[:12] if before is None else f"+{gap_ms} ms"
            lines.append(f"  {when:>12}  {_words(each, names)}")
            before = each.at
    return lines


def _words(event: Event, names: Mapping[str, str]) -> str:
    fields = event.fields

    def node(field: str) -> str:
        peer = str(fields.get(field, ""))
        return names.get(peer, f"…{peer[-8:]}")

    match event.event:
        case "lost":
            why = _named(fields, "why", names)
            return f"lost {node('peer')}, {fields.get('layers')} ({fields.get('cause')}): {why}"
        case "leaving":
            return f"{node('peer')}, {fields.get('layers')}, is to leave"
        case "rerouted":
            stages = fields.get("route")
            route = stages if isinstance(stages, Mapping) else {}
            there = ", ".join(f"{names.get(peer, f'…{peer[-8:]}')} {span}" for peer, span in route.items())
            return f"rerouted over {there}: {fields.get('stay')} stay, {fields.get('new')} new"
        case "replaying":
            return f"{node('peer')} sends {node('to')} positions {fields.get('begin')} to {fields.get('end')} again"
        case "beginning anew":
            return f"begins anew from its {fields.get('position')} tokens"
        case "resumed":
            return f"goes on at position {fields.get('position')} after a pause of {fields.get('pause_ms')} ms"
        case "gave up":
            return f"given up: {_named(fields, 'why', names)}"
        case other:
            return other


def _named(fields: Mapping[str, Any], field: str, names: Mapping[str, str]) -> str:
    text = str(fields.get(field, ""))
    for peer, name in names.items():
        text = text.replace(f"the node {peer}", name).replace(peer, name)
    return text

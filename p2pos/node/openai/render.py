"""A process that renders chat templates: `python -m p2pos.node.openai.render`, one JSON line in, one out.

A template is a program that came with a model, from whoever made it. transformers' sandbox keeps it from what Python
can reach; this process keeps it from taking time and memory: what exceeds a limit ends the process, and nothing else.
"""

import json
import resource
import signal
import sys
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

CPU_S = 2.0
"""Seconds of processor time for one chat. The longest templates in use take milliseconds."""
MEMORY = 2 << 30
"""Bytes of address space; the libraries alone reserve some hundred MB."""
MAX_TEXT = 16 << 20
"""Characters of a rendered chat: twice the largest request."""


def main() -> None:
    """Answer until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)  # SIGVTALRM ends the process
        answer = json.dumps(_render(json.loads(line)))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


def _render(order: dict[str, Any]) -> dict[str, str]:
    try:
        given = {
            "conversations": [order["messages"]],
            "tools": order["tools"],
            "chat_template": order["template"],
            "add_generation_prompt": True,
        }
        rendered, _ = render_jinja_template(**{**order["variables"], **given})
    except jinja2.TemplateSyntaxError as exc:
        return {"error": f"the model's chat template can't be read: {exc}"}
    except MemoryError:
        return {"error": "the model's chat template needs too much memory"}
    except Exception as exc:  # noqa: BLE001 - the template's code is a stranger's and may raise anything
        return {"error": f"the model's chat template refuses these messages: {exc}"}
    text = str(rendered[0])
    return {"text": text} if len(text) <= MAX_TEXT else {"error": "the model's chat template writes too much"}


if __name__ == "__main__":
    main()

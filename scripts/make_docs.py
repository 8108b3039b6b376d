"""Write the pages that are made: cli.md, models.md and descriptor.schema.json in docs.

They come from the commands themselves, the record of the parity bench, and the descriptor's model.

`--check` compares, and ends 1 where a page has drifted.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from p2pos.assets.schema import schema
from p2pos.cli.main import root
from p2pos.shard import support

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "cli.md"
MODELS = DOCS / "models.md"
SCHEMA = DOCS / "descriptor.schema.json"
WIDTH = 96
HEAD = """# The command line

Generated from the commands by `make docs`; a test holds it to them.

Every command takes `--home DIR` (or `P2POS_HOME`) for where its state lives. Settings come from defaults, then
`p2pos.toml` in that directory, then `P2POS_*` in the environment, then flags. `--json` prints JSON on standard output;
errors are one line on standard error.

Exit codes: 0 done, 1 failed, 2 the user's mistake, 3 network or chain not reachable, 130 interrupted.
"""
MODELS_HEAD = """# Models

Generated from `p2pos/shard/support.json` by `make docs`; a test holds it to the record.

A node serves a span of any causal language model whose type is in the first table: `model_type` in its config.json.
The record comes from `python -m bench parity`, which makes a tiny model of random weights of every causal-LM type that
transformers knows, cuts it in two and in three, runs a prompt in two chunks and then cached decode steps through the
stages, each loaded from the checkpoint as a node loads it, and compares the logits with the whole model's in fp32. A
type is in the first table where no logit differed by more than 1e-5. It is refused, with the reason given, where one
did, where its code fails on a span, or where transformers' own code answers otherwise with a cache than without one.

A stage is the model's own code, from transformers, with pass-throughs where other nodes' layers are. Between stages
goes one hidden state for each token and nothing else, so types whose layers pass on more can't be cut. A type marked
*plan* publishes a pipeline plan in transformers; of the others the one list of layers is found. Of a type that is
served, a config may still ask for what a span can't give (keys shared between layers, a second input for each layer,
reading in both directions), and is refused with that reason.

Sessions of a type marked *side by side* run in one batch over shared blocks of the cache, because that too was found
equal to the whole model, to rounding. Those of the others run one after another, each with a cache of its own.

After a change of transformers: `python scripts/make_support.py`, then `make docs`.
"""


def models_page() -> str:
    """The page of models, whole."""
    found = support.record()
    served = {name: verdict for name, verdict in sorted(found.types.items()) if not verdict.reason}
    refused = {name: verdict for name, verdict in sorted(found.types.items()) if verdict.reason}
    planned = [verdict for verdict in found.types.values() if verdict.plan]
    lines = [
        MODELS_HEAD,
        f"With transformers {found.transformers}, {len(served)} of {len(found.types)} types are served.",
        f"Of the {len(planned)} that publish a plan, {sum(not verdict.reason for verdict in planned)} are.\n",
        "## Served\n\n| type | | |\n|---|---|---|",
        *(
            f"| `{name}` | {'plan' if verdict.plan else ''} | {'side by side' if 'paged' in verdict.equal else ''} |"
            for name, verdict in served.items()
        ),
        "\n## Refused\n\n| type | | why |\n|---|---|---|",
        *(f"| `{name}` | {'plan' if verdict.plan else ''} | {verdict.reason} |" for name, verdict in refused.items()),
    ]
    return "\n".join(lines) + "\n"


def schema_page() -> str:
    """The JSON Schema of descriptors, whole."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def page() -> str:
    """The page of commands, whole."""
    return HEAD + "".join(sections(root, None, "p2pos"))


def sections(command: click.Command, parent: click.Context | None, name: str) -> Iterator[str]:
    """One section per command that does something, depth first."""
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    if isinstance(command, click.Group):
        if parent is None:
            yield f"\n## {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"
        for each in command.list_commands(context):
            child = command.get_command(context, each)
            if child is not None:
                yield from sections(child, context, each)
        return
    yield f"\n## {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"


def main() -> None:
    """Write the pages, or check them."""
    for path, text in ((PAGE, page()), (MODELS, models_page()), (SCHEMA, schema_page())):
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            print(f"{path.name} is not what it is made from: run `make docs`", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()

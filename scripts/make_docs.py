"""Write docs/cli.md from the commands themselves. `--check` compares, and ends 1 where it has drifted."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from p2pos.cli.main import root

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
WIDTH = 96
HEAD = """# The command line

Generated from the commands by `make docs`; a test holds it to them.

Every command takes `--home DIR` (or `P2POS_HOME`) for where its state lives. Settings come from defaults, then
`p2pos.toml` in that directory, then `P2POS_*` in the environment, then flags. `--json` prints JSON on standard output;
errors are one line on standard error.

Exit codes: 0 done, 1 failed, 2 the user's mistake, 3 network or chain not reachable, 130 interrupted.
"""


def page() -> str:
    """The page, whole."""
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
    """Write the page, or check it."""
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != page():
            print(f"{PAGE.name} is not what the commands say: run `make docs`", file=sys.stderr)
            sys.exit(1)
        return
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

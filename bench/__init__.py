"""Figures, measured. `python -m bench NAME --json` prints one JSON object; a module per bench, `harness` beneath."""

"""The models that ship with p2pos, as directories in Hugging Face format.

`lantern` is the default: a small Llama in English and Chinese (see its README.md). It may import nothing of `p2pos`.
"""

from pathlib import Path

DEFAULT = Path(__file__).parent / "lantern"
"""The default model's directory: config.json, model.safetensors, tokenizer.json and what belongs to them."""

__all__ = ["DEFAULT"]

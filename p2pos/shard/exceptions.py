"""What the one generic stage must be told of a type, because neither its config nor its code says so.

Each table is as small as the types allow, and the parity bench finds out what is missing from it: a type that needs an
entry and has none answers otherwise than the whole model, and is refused.
"""

from collections.abc import Callable
from typing import Any

LAYER_COUNTS = {
    "longcat_flash": "num_layers",  # its `num_hidden_layers` counts two sublayers of attention in each layer
}
"""Types whose config counts their layers elsewhere than in `num_hidden_layers`."""

STREAMS = {"qwen4_exp_text": "hc_count"}
"""Types whose layers pass several hidden states on for each token, side by side as one wide one → how many."""

STEPWISE = frozenset({"falcon_mamba", "jamba", "mamba"})
"""Types whose code takes up a state that it left for one token at a time only. Several tokens that follow others go
through one by one: slower than at once, and right."""

POSITIONS = frozenset({"bamba"})
"""Types whose code counts positions from 0 in each call where it isn't told them. (All others count from the cache;
some of them number positions in a way of their own, so that telling them would be wrong.)"""

CACHES_OF_THEIR_OWN = frozenset({"minimax"})
"""Types whose code insists on the cache class that its forward's annotation names."""

REFUSED = {
    "big_bird": "its code changes how it attends with the first short text, for all texts that follow",
    "blt": "it has three lists of layers, and the hidden states between them are those of patches of bytes",
    "cpmant": "its code puts a prompt of its own before the tokens of each call",
    "deepseek_v4": "its layers pass several hidden states on for each token, and the first look at the tokens besides",
    "dots3_note": "no small config of it is valid, so nothing was found out",
    "emu3": "transformers reads no checkpoint of its text model alone",
    "gemma3n": "its layers look at each token besides the hidden states",
    "gemma3n_text": "its layers look at each token besides the hidden states",
    "gemma4_assistant": "it drafts for another model, whose keys and values it reads",
    "gemma4_unified_assistant": "it drafts for another model, whose keys and values it reads",
    "hrm_text": "each token goes through its layers several times",
    "hy_v4": "its layers pass several hidden states on for each token, and later ones use the choice of earlier ones",
    "inkling2_text": "its layers look at the hidden states of earlier layers",
    "mllama": "transformers reads no checkpoint of its text model alone",
    "musicgen": "it reads several streams of audio codes, not text",
    "musicgen_melody": "it reads several streams of audio codes, not text",
    "openai-gpt": "its code keeps no cache, so each token would cost the whole text again",
    "prophetnet": "its code predicts several tokens at once, and takes a cache for one token at a time only",
    "recurrent_gemma": "its code keeps its state in the model, so sessions would mix",
    "reformer": "its code reads a text at several places at once, hashed at random",
    "rwkv": "its code keeps its state in a list of its own",
    "xlm": "its code keeps four lists in place of one list of layers",
    "xlnet": "it does not read leftwards only",
    "xlstm": "its code keeps its state in a cache of its own kind, which counts no tokens",
    "zamba": "its layers look at the embedding of each token besides the hidden states",
    "zamba2": "its layers look at the embedding of each token besides the hidden states",
    "zaya": "its layers pass one another the state of a router besides the hidden states",
}
"""Types that no stage serves, and why."""

ENCODERS = frozenset(
    {
        "bert",
        "bert-generation",
        "camembert",
        "data2vec-text",
        "electra",
        "ernie",
        "megatron-bert",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roc_bert",
        "roformer",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Types that read leftwards only where their config says `is_decoder`."""

Rule = tuple[Callable[[Any], bool], str]

FEATURES: tuple[Rule, ...] = (
    (
        lambda text: bool(getattr(text, "hidden_size_per_layer_input", None)),
        "its layers look at each token besides the hidden states",
    ),
    (
        lambda text: bool(getattr(text, "num_kv_shared_layers", None)),
        "its later layers use the keys and values of earlier ones",
    ),
    (
        lambda text: "shared" in (getattr(text, "indexer_types", None) or ()),
        "its later layers use the choice of keys of earlier ones",
    ),
    (
        lambda text: bool(getattr(text, "ple_layer_ids", None)),
        "its layers look at each token besides the hidden states",
    ),
    (
        lambda text: getattr(text, "use_bidirectional_attention", None) in {True, "all"},
        "it does not read leftwards only",
    ),
    (
        lambda text: getattr(text, "is_decoder", True) is False and text.model_type in ENCODERS,
        "it does not read leftwards only: its config says is_decoder: false",
    ),
)
"""What a config of a type that passes may ask for all the same, and that a span can't give. Told the text's config."""

"""Which events make a story: a dozen plots, told in either language by its teller."""

import random

from scripts.train.cast import Cast
from scripts.train.chinese import Chinese
from scripts.train.english import English
from scripts.train.teller import Teller

TELLERS: dict[str, type[Teller]] = {"en": English, "zh": Chinese}

OPEN = "open_travel/open_once/open_road/open_inn"
PLOTS: dict[str, tuple[int, str]] = {
    # name: weight, events. `a/b` is one of both, `a?` comes in half of the tellings, `a*3` three times by three
    # different lines, `~` is a filler in half of the tellings.
    "buy": (4, "open_market/open_market/open_once ~ stall see_item ask_price bargain? pay receive ~ close"),
    "show": (3, f"open_item ~ {OPEN} ~ host_asks tell ~ sleep close"),
    "gift": (4, f"open_item/{OPEN} ~ meet_friend talk give thank ~ close"),
    "cross": (4, f"open_item/{OPEN} ~ reach_gate gate_question cross other_side ~ item_keeps ~ close"),
    "lose": (3, "open_item ~ lose search*2 ~ find relief close"),
    "dark": (4, "open_item/open_road/open_travel ~ nightfall light_item follow_light*2 ~ shelter ~ close"),
    "swap": (3, f"open_item/{OPEN} meet_friend ~ propose_swap consider agree_swap ~ close"),
    "send": (5, f"open_item/{OPEN} ~ promise sign relay ledger_shows friend_gets ~ close"),
    "mend": (3, f"open_item ~ broken {OPEN}? smith work ~ mended close"),
    "inn": (3, "open_inn/open_travel ~ eat host_asks tell*2 ~ sleep close"),
    "ferry": (3, "open_item/open_travel/open_road board ~ storm calm ~ land close"),
    "way": (3, f"{OPEN}/open_market ~ ask_way answer_way advise*2 set_out ~ close"),
    "letter": (3, "letter_open letter_news*3 letter_item letter_news letter_close"),
    "about_gate": (1, "define_gate about_gate*4 define_world about_world*3"),
    "about_ledger": (1, "define_ledger about_ledger*5"),
    "about_lantern": (1, "define_lantern about_lantern*4 define_market? about_market*2"),
    "about_world": (1, "define_world about_world*5 define_gate about_gate*2"),
    "about_market": (1, "define_market about_market*5"),
}
FILLERS = ("weather", "scenery", "people", "feeling", "eat")
NAMED = frozenset({"letter"})
"""Plots whose hero signs with a name."""
WITH_LIGHT = frozenset({"dark", "ferry"})
"""Plots that need a lamp."""
SEQUELS = ("gift", "cross", "send", "ferry", "way", "dark")
"""Plots that may follow another; their openings are left out."""
SEQUEL_SHARE = 0.35


def events(plot: str, rng: random.Random) -> list[str]:
    """The names of the plot's events, every choice made."""
    chosen = []
    for step in PLOTS[plot][1].split():
        if step == "~":
            chosen += [rng.choice(FILLERS)] if rng.random() < 0.5 else []
            continue
        if step.endswith("?") and rng.random() < 0.5:
            continue
        name, _, times = step.removesuffix("?").partition("*")
        chosen += [rng.choice(name.split("/"))] * int(times or 1)
    return chosen


def tell(rng: random.Random, language: str) -> str:
    """One story, one or two paragraphs, without a line break at its end.

    Args:
        rng: all choices come from it.
        language: "en" or "zh".

    """
    plot = rng.choices(tuple(PLOTS), tuple(weight for weight, _ in PLOTS.values()))[0]
    cast = Cast.draw(rng, light=plot in WITH_LIGHT, named=plot in NAMED)
    teller = TELLERS[language](cast)
    paragraphs = [_paragraph(teller, events(plot, rng))]
    if not plot.startswith(("about_", "letter")) and rng.random() < SEQUEL_SHARE:
        sequel = rng.choice(tuple(name for name in SEQUELS if name != plot))
        teller.recast(Cast.draw(rng, light=sequel in WITH_LIGHT, named=False, like=cast))
        body = [event for event in events(sequel, rng) if not event.startswith("open_")]
        paragraphs.append(_paragraph(teller, ["next", *body]))
    return "\n".join(paragraphs)


def _paragraph(teller: Teller, names: list[str]) -> str:
    return teller.joiner.join(text for text in map(teller.tell, names) if text)

"""The OpenAI-compatible API: completions and chat over whatever models the swarm serves.

`requests` says what may be asked and `answers` how it is answered; `catalogue` finds a model, its route and its files;
`templates` renders chats in a process of its own, `tools` reads tool calls, `texts` turns tokens into text; `service`
joins them. May import what `p2pos.node` may. Start reading at `service`.
"""

"""What peers say to one another, as types and as bytes. Pure: no sockets, no clock, no torch.

`messages` has the types, `codec` their msgpack, `framing` cuts a byte stream into size-capped frames, `tensors`
describes raw tensor bytes. May import `p2pos.errors` and `p2pos.types`. Start reading at `messages`.
"""

"""One span of a transformer: weights, cache, sampling, and the machines that carry a session through a pipeline.

Pure: `session` and `owner` (a session at a stage, and as its owner sees it), `routing`, `coverage`. With torch:
`checkpoint` → `architecture` → `stage`, `cache`, `sampling`, `activations`, `engine`. `manifest` names a model by its
content, `shelf` has its chunks as they lie on the disk, `text` turns tokens into text as they come. May import `wire`,
`content`, `config`, `types`, `errors`. Start reading at `stage`.
"""

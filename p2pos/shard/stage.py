"""A stage: one span of a causal LM, loaded from its own bytes alone, run by the model's own forward."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.modeling_utils import LoadStateDictConfig

from p2pos.content import chunks
from p2pos.errors import InternalError, UserError
from p2pos.shard import architecture, blocked, exceptions, paged, support
from p2pos.shard import cache as caches
from p2pos.shard.cache import SpanCache
from p2pos.shard.checkpoint import Checkpoint, TensorInfo
from p2pos.shard.manifest import Manifest
from p2pos.shard.quantize import LoadQuantizer, Summary, check_kernels, packed_tensors
from p2pos.types import LayerSpan
from p2pos.wire.messages import Quantization


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading cost."""

    bytes_read: int
    """Of weights, from disk."""
    span_bytes: int
    """Bytes that the span's weights take in memory."""
    total_bytes: int
    """Of the whole checkpoint's weights."""
    seconds: float
    quantized: Summary
    """Which of its layers are held in fewer bits, and the bytes that this saves."""


_TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""By safetensors' names."""


class Stage:
    """A span of a model, ready to run. Not thread-safe: one thread at a time calls `run`.

    Attributes:
        span: the layers it has.
        layers: how many the whole model has.
        width: hidden size.
        vocabulary: how many token ids there are.
        max_positions: tokens that the model's context holds.
        report: what loading cost.

    """

    def __init__(
        self, model: nn.Module, config: Any, span: LayerSpan, device: torch.device, report: LoadReport
    ) -> None:
        self._model = model
        self._base = architecture.base_model(model)
        self._cache_name = architecture.cache_name(self._base)
        self._kind = str(config.get_text_config(decoder=True).model_type)
        self._keeps = {"logits_to_keep": 1} if architecture.takes(model, "logits_to_keep") else {}
        self._config = config
        self.span = span
        self.device = device
        self.layers = architecture.layer_count(config)
        self.width = architecture.hidden_size(config)
        self.dtype: torch.dtype = model.dtype  # type: ignore[assignment]  # transformers ships no types
        self.vocabulary = architecture.vocabulary(config)
        self.max_positions = architecture.max_positions(config)
        self.report = report
        self._through = paged.Through(self.layers)

    @classmethod
    def load(
        cls,
        directory: Path,
        span: LayerSpan | None = None,
        *,
        dtype: str = "bf16",
        device: str = "cpu",
        quantize: Quantization = "none",
        manifest: Manifest | None = None,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> Self:
        """Load a span, reading no other weights than its own.

        Args:
            directory: a checkpoint in Hugging Face format.
            span: None takes all layers.
            dtype: `bf16`, `f32` or `f16`; weights stored otherwise are converted as they are read.
            device: `cpu` or a CUDA device.
            quantize: `none`, or `int8` or `int4` to hold its linear layers in fewer bits.
            manifest: where given, every tensor's bytes are checked against its digest.
            on_bytes: told of the bytes of each tensor read, for progress; called from loader threads.

        Raises:
            UserError: the directory, its architecture, the span, the device or a tensor's bytes won't do, or there is
                nothing to quantize.

        """
        began_s = time.monotonic()
        checkpoint = Checkpoint.open(directory)
        config, span = check(directory, span, device=device)
        model = architecture.build(config, span, architecture.DTYPES[dtype])
        reader = _Reader(checkpoint, manifest, on_bytes)
        check_kernels(quantize, device)
        quantizer = None if quantize == "none" else LoadQuantizer(quantize, model, architecture.DTYPES[dtype])
        _fill(model, reader, architecture.DTYPES[dtype], device, quantizer)
        if quantizer is not None:
            quantizer.finish(model, looks_up=span.start == 0)
        tensors = (*model.parameters(), *packed_tensors(model))
        held = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}
        blocked.arrange(model)  # after the parameters were counted: there are fewer then
        report = LoadReport(
            reader.bytes_read,
            sum(held.values()),
            checkpoint.total_bytes,
            time.monotonic() - began_s,
            quantizer.summary if quantizer else Summary(),
        )
        return cls(model, config, span, torch.device(device), report)

    @property
    def is_head(self) -> bool:
        """Whether it owns the embedding."""
        return self.span.start == 0

    @property
    def is_tail(self) -> bool:
        """Whether it owns norm and head."""
        return self.span.end == self.layers

    def new_cache(self) -> SpanCache:
        """An empty cache for one session."""
        return caches.new(self._base, self._config, self.span)

    @torch.inference_mode()
    def run(self, inputs: torch.Tensor, cache: SpanCache, *, want_logits: bool = False) -> torch.Tensor:
        """Pass tokens through the span and into the cache.

        Args:
            inputs: at the head token ids (rows,) int64, elsewhere hidden states (rows, width).
            cache: this session's; `cache.positions` is the first row's position.
            want_logits: at the tail, give the last row's logits.

        Returns:
            Hidden states (rows, width), after the final norm at the tail; or logits (vocabulary,).

        Raises:
            InternalError: logits were asked of a stage that isn't the tail.

        """
        if want_logits and not self.is_tail:
            raise InternalError(f"layers {self.span} have no head")
        rows = inputs.shape[0]
        if rows > 1 and cache.positions and self._kind in exceptions.STEPWISE:
            outputs = [self._forward(row, cache, want_logits=want_logits) for row in torch.split(inputs, 1)]
            return outputs[-1] if want_logits else torch.cat(outputs)
        return self._forward(inputs, cache, want_logits=want_logits)

    def _forward(self, inputs: torch.Tensor, cache: SpanCache, *, want_logits: bool) -> torch.Tensor:
        rows = inputs.shape[0]
        kwargs: dict[str, Any] = {self._cache_name: cache, "use_cache": True}
        kwargs["input_ids" if self.is_head else "inputs_embeds"] = inputs.to(self.device).unsqueeze(0)
        if self._kind in exceptions.POSITIONS:
            start = cache.positions
            kwargs["position_ids"] = torch.arange(start, start + rows, device=self.device).unsqueeze(0)
        if want_logits:
            output = self._model(**kwargs, **self._keeps).logits[0, -1]
        else:
            output = self._base(**kwargs).last_hidden_state[0]
        cache.advance(rows)
        return output  # type: ignore[no-any-return]  # transformers ships no types

    def nothing(self) -> torch.Tensor:
        """Inputs of one row, to try the span with: a token id (1,) at the head, elsewhere zeros (1, width)."""
        return torch.zeros(1, dtype=torch.long) if self.is_head else torch.zeros(1, self.width, dtype=self.dtype)

    def page(self) -> dict[int, tuple[int, int, int]]:
        """Make the model's attention ready for `run_rows`, and find what each layer of the span keeps of a token.

        Returns:
            Layer → (heads, key width, value width).

        Raises:
            InternalError: the architecture isn't for it; and whatever its code raises where it isn't.

        """
        if not support.holds(self._kind, "paged"):
            raise InternalError(f"nobody has found {self._kind} equal to the whole model when texts run side by side")
        if found := architecture.depends_on_length(self._config):
            raise InternalError(f"its {found} positions depend on the length of the text")
        rows = self.nothing()
        at = torch.zeros(1, dtype=torch.long, device=self.device) if self.is_tail else None
        # without `during` the new function does what the old one did, so nothing is lost where it won't do
        architecture.set_attention(self._model, paged.register(architecture.attention(self._model)))
        shapes = paged.probe(lambda step: self.run_rows(rows, step.positions, at), self.device)
        if set(shapes) != set(range(self.span.start, self.span.end)):
            raise InternalError("not all its layers attend by way of transformers' interface")
        return shapes

    @torch.inference_mode()
    def run_rows(
        self, inputs: torch.Tensor, positions: torch.Tensor, logits_at: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Pass rows of any sessions through the span; attention is answered by `paged.during`.

        Args:
            inputs: at the head token ids (rows,) int64, elsewhere hidden states (rows, width).
            positions: (rows,) int64, of each row in its session's text.
            logits_at: at the tail the rows whose logits are wanted, (n,) int64.

        Returns:
            Hidden states (rows, width), and logits (n, vocabulary) where they were asked for; then the hidden states
            are the inputs, because nobody wants them.

        """
        feed = {"input_ids" if self.is_head else "inputs_embeds": inputs.to(self.device).unsqueeze(0)}
        kwargs = {**feed, "position_ids": positions.unsqueeze(0), "past_key_values": self._through, "use_cache": True}
        if logits_at is None:
            return self._base(**kwargs).last_hidden_state[0], None
        return inputs, self._model(**kwargs, logits_to_keep=logits_at).logits[0]


def check(directory: Path, span: LayerSpan | None, *, device: str = "cpu") -> tuple[Any, LayerSpan]:
    """The config of a model, and the span or all layers. Raises UserError where they, or the device, won't do."""
    config = architecture.read_config(directory)
    count = architecture.layer_count(config)
    if span is not None and span.end > count:
        raise UserError(f"layers {span} are outside the model, which has layers 0:{count}", hint="change --layers")
    if device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"there is no device {device} here", hint="use --device cpu")
    return config, span or LayerSpan(0, count)


def needed(checkpoint: Checkpoint, span: LayerSpan | None = None) -> list[TensorInfo]:
    """The tensors that a span, or all of a model, is made of, by the headers alone: the loader runs on the meta device.

    Raises UserError where the checkpoint lacks one of them, or has it in a shape that its config denies.
    """
    config, span = check(checkpoint.directory, span)
    dtype = architecture.DTYPES[checkpoint.dtype]
    slices = {name: _Rehearsed(info) for name, info in checkpoint.tensors.items()}
    _load_slices(architecture.build(config, span, dtype), checkpoint, slices, dtype, "meta", None)
    return [each.info for each in slices.values() if each.used]


class _Rehearsed:
    """A lazy slice that has no data and knows whether it was asked for them."""

    def __init__(self, info: TensorInfo) -> None:
        self.info = info
        self.used = False

    def get_shape(self) -> list[int]:
        return list(self.info.shape)

    def get_dtype(self) -> str:
        return self.info.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        self.used = True
        return torch.empty(self.info.shape, dtype=_TORCH_DTYPES[self.info.dtype], device="meta")[index]


class _Reader:
    """Hands the loader one lazy slice per tensor, and counts and checks the bytes that are read."""

    def __init__(self, checkpoint: Checkpoint, manifest: Manifest | None, on_bytes: Callable[[int], None]) -> None:
        self.checkpoint = checkpoint
        self.bytes_read = 0
        self._manifest = manifest
        self._on_bytes = on_bytes

    def check(self, info: TensorInfo, tensor: torch.Tensor) -> torch.Tensor:
        self.bytes_read += info.nbytes
        self._on_bytes(info.nbytes)
        partial, fetched = self.checkpoint.partial, self.checkpoint.fetched
        if fetched is not None and fetched.lacking([info.name]):
            raise UserError(
                f"{info.file} lacks {info.name}, or a part of it, which has not been fetched",
                hint=f"p2pos model fetch {self.checkpoint.directory.name}",
            )
        if partial is None and self._manifest is None:
            return tensor
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
        if partial is not None:  # its manifest has the digests of whole files; which may not be here
            partial.check(info.file, info.offset, data)
        elif self._manifest is not None:
            digest = chunks.digest(data).hex()
            if digest != self._manifest.tensors[info.name]["digest"]:
                if fetched is not None:
                    fetched.forget(fetched.chunks.of(info.name))
                    raise UserError(
                        f"{info.file} is damaged on disk at {info.name}",
                        hint="run this again without --offline: that part is fetched again",
                    )
                raise UserError(
                    f"{info.file}: the bytes of {info.name} are not those of the manifest",
                    hint="copy or download it again, then `p2pos model pin`",
                )
        return tensor


class _LazySlice:
    """What transformers' loader takes for a tensor: shape and dtype at once, the data when indexed."""

    def __init__(self, reader: _Reader, info: TensorInfo, source: Any) -> None:
        self._reader = reader
        self._info = info
        self._source = source

    def get_shape(self) -> list[int]:
        return list(self._info.shape)

    def get_dtype(self) -> str:
        return self._info.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        # whole tensors only: the loader slices for tensor parallelism alone, which a stage doesn't use
        return self._reader.check(self._info, self._source.get_slice(self._info.name)[...])[index]


def _fill(model: nn.Module, reader: _Reader, dtype: torch.dtype, device: str, quantizer: LoadQuantizer | None) -> None:
    """Read the model's parameters from the files."""
    tensors = reader.checkpoint.tensors
    with ExitStack() as stack:
        sources: dict[Path, Any] = {}
        for file in {tensor.file for tensor in tensors.values()}:
            try:
                sources[file] = stack.enter_context(safe_open(file, "pt", backend="pread"))
            except (SafetensorError, OSError) as exc:
                why = " ".join(str(exc).split())[:200]
                raise UserError(f"{file} can't be read: {why}", hint="copy or download it again") from exc
        slices = {name: _LazySlice(reader, info, sources[info.file]) for name, info in tensors.items()}
        try:
            _load_slices(model, reader.checkpoint, slices, dtype, device, quantizer)
        except SafetensorError as exc:
            why = " ".join(str(exc).split())[:200]
            raise UserError(f"{reader.checkpoint.directory} {why}", hint="copy or download it again") from exc


def _load_slices(
    model: nn.Module,
    checkpoint: Checkpoint,
    slices: Mapping[str, _LazySlice | _Rehearsed],
    dtype: torch.dtype,
    device: str,
    quantizer: LoadQuantizer | None,
) -> None:
    """Fill the model's parameters by transformers' own loader, which knows each architecture's renamings."""
    loader: Any = model
    load_config = LoadStateDictConfig(
        dtype=dtype,
        device_map={"": device},
        hf_quantizer=quantizer,
        weight_mapping=get_model_conversion_mapping(loader),
    )
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # it would report every other stage's tensors as unexpected
    transformers.logging.disable_progress_bar()
    try:
        loaded, _ = loader._load_pretrained_model(loader, slices, None, load_config)
        missing = sorted(set(loaded.missing_keys) - set(loader.all_tied_weights_keys))
        # of a mismatch the loader tells the name, the shape that was found, and the one that was wanted
        wrong = sorted(each[0] if isinstance(each, tuple) else str(each) for each in loaded.mismatched_keys)
        wrong += sorted(loaded.conversion_errors)
        if missing or wrong:
            fault = f"lacks {missing[0]}" if missing else f"has {wrong[0]} in a shape that its config denies"
            raise UserError(f"{checkpoint.directory} {fault}", hint="copy or download it again")
        if device != "meta":
            loader._finalize_model_loading(loader, load_config, loaded)
    finally:
        transformers.logging.set_verbosity(verbosity)

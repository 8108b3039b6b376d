"""Structured log lines on standard error: for a person on a terminal, JSON with `--log-json`."""

import logging
import sys
from typing import Any, TextIO, cast

import structlog

LEVELS = ("debug", "info", "warning", "error")


def configure(*, level: str = "info", as_json: bool = False) -> None:
    """Set up logging for this process. Called once, by the command line.

    Libraries that use the standard module (libp2p, hypercorn, web3) go through the same renderer, from
    warnings up, because their information is about themselves.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if as_json else _same,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _StandardError())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast("TextIO", _StandardError()))
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def get(name: str) -> Any:
    """A logger whose lines carry `name` as the component."""
    return structlog.get_logger(component=name)


class _StandardError:
    """Standard error as it is when a line is written: whoever redirects it later is followed."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _same(_logger: Any, _method: str, event: Any) -> Any:
    return event

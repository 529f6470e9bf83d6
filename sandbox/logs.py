"""Logging of the sandbox programs and their libraries: one JSON object per line."""

import logging
import sys

import structlog


def write_json() -> None:
    """Configure logging to write every line as JSON to stdout."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    facts = [structlog.processors.format_exc_info]
    written = structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[structlog.processors.add_log_level, stamp, *facts, written],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, stamp],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *facts,
                written,
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])

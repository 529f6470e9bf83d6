"""HTTP details: request bodies, streamed responses and injected faults."""

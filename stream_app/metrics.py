"""Every metric of the worker, with its unit and meaning.

The documentation and the dashboards are made from this list.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

RECORDS_CONSUMED = Counter("ganomaly_records_consumed", "Records taken from the broker.", ["topic"], registry=REGISTRY)
RECORDS_SCORED = Counter("ganomaly_records_scored", "Records that got a score.", ["topic"], registry=REGISTRY)
RECORDS_BUFFERED = Counter(
    "ganomaly_records_buffered",
    "Single observations that completed no window and so got no score.",
    ["topic"],
    registry=REGISTRY,
)
DEAD_LETTERS = Counter(
    "ganomaly_dead_letters",
    "Records that could not be scored, by the error's name.",
    ["topic", "error"],
    registry=REGISTRY,
)
ANOMALIES = Counter(
    "ganomaly_anomalies", "Records whose score crossed their stream's threshold.", ["topic"], registry=REGISTRY
)
EVENTS_PUBLISHED = Counter(
    "ganomaly_events_published", "Events handed to the producer, by destination topic.", ["topic"], registry=REGISTRY
)
BATCH_ROWS = Histogram("ganomaly_batch_rows", "Rows of a micro-batch.", ["detector"], buckets=_ROWS, registry=REGISTRY)
BATCH_SECONDS = Histogram(
    "ganomaly_batch_seconds",
    "Seconds the detector took for a micro-batch.",
    ["detector"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "ganomaly_stage_seconds",
    "Seconds that a chunk of records spent in a stage: decode, windows, score (waiting included), threshold, "
    "evidence, publish.",
    ["stage"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
DELAY_SECONDS = Histogram(
    "ganomaly_delay_seconds",
    "Seconds from a record's Kafka timestamp to the hand-over of its event to the producer.",
    ["topic"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
COMMIT_SECONDS = Histogram(
    "ganomaly_commit_seconds",
    "Seconds that a commit cycle waited for acknowledgements and Redis, before the offsets were committed.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
IN_HAND_BYTES = Gauge("ganomaly_in_hand_bytes", "Bytes of records that are fetched and not done.", registry=REGISTRY)
IN_HAND_RECORDS = Gauge("ganomaly_in_hand_records", "Records that are fetched and not done.", registry=REGISTRY)
PAUSED = Gauge("ganomaly_paused", "1 while fetching is paused because too many bytes are in hand.", registry=REGISTRY)
PAUSES = Counter(
    "ganomaly_pauses", "Times that fetching was paused because of too many bytes in hand.", registry=REGISTRY
)
CONSUMER_LAG = Gauge(
    "ganomaly_consumer_lag", "Records in the log that are not done yet.", ["topic", "partition"], registry=REGISTRY
)
STREAMS = Gauge("ganomaly_streams", "Streams that are in memory.", ["topic"], registry=REGISTRY)
STORE_ERRORS = Counter("ganomaly_store_errors", "Round trips to Redis that failed.", registry=REGISTRY)
STATES_CORRUPT = Counter(
    "ganomaly_states_corrupt",
    "Saved states of streams that could not be read; the stream began anew.",
    registry=REGISTRY,
)
STATES_FENCED = Counter(
    "ganomaly_states_fenced", "Saves of a stream's state that gave way to a newer one in Redis.", registry=REGISTRY
)
DEGRADED = Gauge("ganomaly_degraded", "1 while Redis can't be reached.", registry=REGISTRY)
MODEL_INFO = Gauge("ganomaly_model_info", "1 for the version in service.", ["detector", "version"], registry=REGISTRY)
READY = Gauge("ganomaly_ready", "1 while /readyz answers 200.", registry=REGISTRY)

"""Every metric of the worker and of the trainer, with its unit and meaning.

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
DUPLICATES = Counter(
    "ganomaly_duplicates",
    "Single observations that their stream had already, the same at the same time: they were dropped.",
    ["topic"],
    registry=REGISTRY,
)
WINDOWS_BEGUN = Counter(
    "ganomaly_windows_begun_anew",
    "Windows that began anew: after a gap, or because a sender's clock was put back.",
    ["topic"],
    registry=REGISTRY,
)
JUMPS = Counter(
    "ganomaly_clock_jumps",
    "Single observations far ahead of the others that left their stream's window again, as the next ones came back.",
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
IN_HAND_BYTES = Gauge(
    "ganomaly_in_hand_bytes",
    "Bytes of records that are fetched and not done, with the windows, pictures and tails that are made of them.",
    registry=REGISTRY,
)
IN_HAND_RECORDS = Gauge("ganomaly_in_hand_records", "Records that are fetched and not done.", registry=REGISTRY)
PAUSED = Gauge("ganomaly_paused", "1 while fetching is paused because too many bytes are in hand.", registry=REGISTRY)
PAUSES = Counter(
    "ganomaly_pauses", "Times that fetching was paused because of too many bytes in hand.", registry=REGISTRY
)
CONSUMER_LAG = Gauge(
    "ganomaly_consumer_lag", "Records in the log that are not done yet.", ["topic", "partition"], registry=REGISTRY
)
STREAMS = Gauge("ganomaly_streams", "Streams that are in memory.", ["topic"], registry=REGISTRY)
STREAMS_LOST = Counter(
    "ganomaly_streams_lost",
    "Streams that began anew though they had learned: they had to leave the memory while Redis was away, or Redis had "
    "lost them when they came back.",
    registry=REGISTRY,
)
STATES_LOST = Counter(
    "ganomaly_states_lost",
    "Times that Redis did not have the states of a partition that has records from before: it was flushed, or the "
    "consumer group is new.",
    ["topic"],
    registry=REGISTRY,
)
STATES_BEHIND = Counter(
    "ganomaly_states_behind",
    "Times that the states of a partition in Redis were older than its committed offsets: Redis was away when the last "
    "records were judged, and the worker ended before it was back.",
    ["topic"],
    registry=REGISTRY,
)
STORE_ERRORS = Counter("ganomaly_store_errors", "Round trips to Redis that failed.", registry=REGISTRY)
STATES_CORRUPT = Counter(
    "ganomaly_states_corrupt",
    "Saved states of streams, or parts of them, that could not be read and began anew: whole, threshold, window, "
    "episode.",
    ["part"],
    registry=REGISTRY,
)
STATES_FENCED = Counter(
    "ganomaly_states_fenced", "Saves of a stream's state that gave way to a newer one in Redis.", registry=REGISTRY
)
LABELS = Gauge(
    "ganomaly_labels", "People's labels, within their horizon, that thresholds of streams may heed.", registry=REGISTRY
)
LABELS_UNREADABLE = Counter(
    "ganomaly_labels_unreadable", "Messages on the topic of labels that are none; they were skipped.", registry=REGISTRY
)
UPDATES_UNREADABLE = Counter(
    "ganomaly_model_updates_unreadable",
    "Messages on the topic of model updates that are none; they were skipped.",
    registry=REGISTRY,
)
DEGRADED = Gauge("ganomaly_degraded", "1 while Redis can't be reached.", registry=REGISTRY)
MODEL_INFO = Gauge("ganomaly_model_info", "1 for the version in service.", ["detector", "version"], registry=REGISTRY)
DRIFT_STREAMS = Gauge(
    "ganomaly_drift_streams",
    "Streams that have drifted from the training of the version in service, by topic and statistic; `any` is each "
    "stream once.",
    ["topic", "what"],
    registry=REGISTRY,
)
DRIFT_PSI_MAX = Gauge(
    "ganomaly_drift_psi_max",
    "Largest population stability index of a stream with enough records.",
    ["topic", "what"],
    registry=REGISTRY,
)
DRIFT_KS_MAX = Gauge(
    "ganomaly_drift_ks_max",
    "Largest Kolmogorov-Smirnov distance of a stream with enough records.",
    ["topic", "what"],
    registry=REGISTRY,
)
DRIFT_SECONDS = Counter("ganomaly_drift_seconds", "Seconds that counting for drift took.", registry=REGISTRY)
DRIFT_RECORDS = Counter(
    "ganomaly_drift_records",
    "Scored records that were counted for drift; with drift.cpu used up, others are passed over.",
    registry=REGISTRY,
)
SWAPS = Counter(
    "ganomaly_swaps", "Versions that took over from another one in service.", ["detector"], registry=REGISTRY
)
SWAPS_FAILED = Counter(
    "ganomaly_swaps_failed",
    "Versions that were refused, so that the one in service stayed: missing, digest, manifest, shape, not_finite, "
    "failed.",
    ["detector", "reason"],
    registry=REGISTRY,
)
SWAP_SECONDS = Histogram(
    "ganomaly_swap_seconds",
    "Seconds from the worker's noticing of a new champion to its being in service.",
    ["detector"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
MODEL_FROM_CACHE = Gauge(
    "ganomaly_model_from_cache",
    "1 while the version in service is the last one known on this machine, because the registry did not give one.",
    ["detector"],
    registry=REGISTRY,
)
REGISTRY_REACHABLE = Gauge(
    "ganomaly_registry_reachable", "1 while the registry of models can be reached.", registry=REGISTRY
)
SHADOW_ROWS = Counter(
    "ganomaly_shadow_rows", "Records that a challenger in shadow has scored.", ["detector"], registry=REGISTRY
)
SHADOW_SECONDS = Counter(
    "ganomaly_shadow_seconds", "Seconds that challengers in shadow took.", ["detector"], registry=REGISTRY
)
SHADOW_SKIPPED = Counter(
    "ganomaly_shadow_skipped",
    "Records that a challenger in shadow left out: load (others waited), cost (shadow.max_cost).",
    ["detector", "reason"],
    registry=REGISTRY,
)
READY = Gauge("ganomaly_ready", "1 while /readyz answers 200.", registry=REGISTRY)
TRAINER_RUNS = Counter(
    "ganomaly_trainer_runs",
    "Runs of the trainer, by outcome: promoted, refused, waiting, failed, stopped.",
    ["detector", "outcome"],
    registry=REGISTRY,
)
TRAINER_REFUSED = Counter(
    "ganomaly_trainer_refused",
    "New versions that were refused, by the rule of the gate or of the shadow that refused them.",
    ["detector", "rule"],
    registry=REGISTRY,
)
TRAINER_LAST_RUN = Gauge(
    "ganomaly_trainer_last_run_timestamp_seconds",
    "When the last run of this outcome ended, in seconds since the Unix epoch.",
    ["detector", "outcome"],
    registry=REGISTRY,
)
TRAINER_RUN_SECONDS = Gauge(
    "ganomaly_trainer_run_seconds", "Seconds that the last run took.", ["detector"], registry=REGISTRY
)
TRAINER_RUNNING = Gauge(
    "ganomaly_trainer_running", "1 while this trainer trains the detector.", ["detector"], registry=REGISTRY
)

"""The stream: records from Kafka, through a detector, to alerts."""

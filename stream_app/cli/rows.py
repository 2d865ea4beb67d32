"""The former name of `stream_app.cli.messages`."""

from stream_app.cli.messages import encode_row

__all__ = ["encode_row"]

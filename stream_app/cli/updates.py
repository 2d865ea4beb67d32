"""How the commands that put a version in service tell the workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_app.cli.common import error_console
from stream_app.cli.kafka import silence_client
from stream_app.errors import DependencyError
from stream_app.settings import Settings
from stream_app.updates import publish_update, update_of

if TYPE_CHECKING:
    from model.lineage import Promotion
    from model.registry import Registry


def tell_workers(settings: Settings, registry: Registry, detector: str, promotion: Promotion) -> bool:
    """Publishes who is in service. Without a broker workers find it at their next look, which a warning says.

    A detector that had no version before is in nobody's service, and there is no warning.
    """
    silence_client()
    sha256 = registry.manifest(detector, promotion.version).sha256
    try:
        asyncio.run(publish_update(settings, update_of(detector, promotion, sha256)))
    except DependencyError as error:
        if promotion.replaced is not None:
            wait = settings.registry.poll_interval
            error_console.print(
                "warning: workers were not told, and find it when they next look (GANOMALY_REGISTRY__POLL_INTERVAL, "
                f"{wait:g} s): {error}",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )
        return False
    return True

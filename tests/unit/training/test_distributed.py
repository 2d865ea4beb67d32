from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.registry import Registry
from tests.unit.training import one_of_several
from tests.unit.training.one_of_several import STEPS
from training.distributed import ALONE, Workers

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.timeout(700)  # three trainings in processes that share whatever cores there are


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what one process found, and what two that train together did."""
    folder = tmp_path_factory.mktemp("distributed")
    script = str(Path(one_of_several.__file__))
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    several += ["--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    for command in ([sys.executable], several):
        done = subprocess.run(
            [*command, script, str(folder)], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def found(folder: Path, process: str, kind: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / f"{process}.json").read_text())[kind]
    return result


def losses(folder: Path, process: str, kind: str, name: str) -> list[float]:
    return [point[name] for point in found(folder, process, kind)["curve"] if name in point]


def test_two_processes_have_the_loss_curve_of_one_on_windows(trained: Path) -> None:
    """Without batch normalisation or a loss over pairs, what differs is the order in which float32 are summed.

    That is 1e-7 of a gradient. Adam's first steps divide by its size, so that where it is near zero the noise counts.
    """
    for name in ("generator", "reconstruction", "discriminator"):
        alone, together = losses(trained, "alone", "sequence", name), losses(trained, "0", "sequence", name)
        assert len(alone) == STEPS
        np.testing.assert_allclose(together, alone, rtol=2e-3)


def test_two_processes_have_nearly_the_loss_curve_of_one_on_pictures(trained: Path) -> None:
    """The contrastive loss is over the views of both processes, or it would be ln 2 lower: half as many to choose from.

    Batch normalisation sees half of the batch: its deviations from the statistics of the whole are of the order of one
    in the root of their number, a few percent of 64 pictures' last maps.
    """
    alone, together = (losses(trained, process, "image", "contrastive") for process in ("alone", "0"))
    assert len(alone) == STEPS
    np.testing.assert_allclose(together, alone, atol=0.25)
    assert abs(np.mean(together) - np.mean(alone)) < 0.1
    alone, together = (losses(trained, process, "image", "reconstruction") for process in ("alone", "0"))
    np.testing.assert_allclose(together, alone, rtol=0.1)


def test_the_first_process_saves_and_every_one_knows_the_version(trained: Path) -> None:
    registry = Registry(str(trained / "models"))
    for kind in ("image", "sequence"):
        assert found(trained, "0", kind) == found(trained, "1", kind)
        versions = {manifest.version for manifest in registry.versions(kind)}
        assert versions == {found(trained, process, kind)["version"] for process in ("alone", "0")}


def test_a_batch_is_shared_out_evenly_and_wholly() -> None:
    records = torch.arange(12)
    shares = [Workers(rank, 3).share(records) for rank in range(3)]
    assert [len(share) for share in shares] == [4, 4, 4]
    assert sorted(torch.cat(shares).tolist()) == records.tolist()
    assert torch.equal(ALONE.share(records), records)
    assert [Workers(0, 4).whole(batch) for batch in (128, 60, 7, 1)] == [128, 56, 8, 8]


def test_one_process_alone_changes_nothing() -> None:
    rows = torch.randn(4, 2)
    assert ALONE.gather(rows) is rows
    assert ALONE.average({"loss": 1.5}) == {"loss": 1.5}
    assert ALONE.agree("said") == "said"
    assert ALONE.first

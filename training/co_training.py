"""A dozen labelled anomalies, made the most of: two classifiers that label for each other.

Source: A. Blum, T. Mitchell, Combining labeled and unlabeled data with co-training, COLT 1998, table 1. The two views
are the networks' own. The unlabelled records are made: normal ones that were spoilt, and blends of normal and anomalous
ones (H. Zhang et al., mixup, ICLR 2018, eq. 1), of which some are anomalies and some are not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model.detector import Network
from model.image import ImageGanomaly
from model.labelled import LabelledEvidence
from training.anomalies import spoil_pictures
from training.spoil_windows import spoil_windows
from training.views import picture_view

MOST_NORMAL = 2000
COPIES = 256  # views of labelled anomalies, all together
POOL = 512  # unlabelled records
ROUNDS = 8
CONFIDENT = 2.0  # log-odds
EACH_ROUND = 8  # records that a classifier labels as anomalous, and as many as normal

Views = tuple[Tensor, Tensor]


@torch.no_grad()
def learn_labels(network: Network, normal: Tensor, anomalous: Tensor, random: torch.Generator) -> None:
    """Fits `network.labelled` to records `[N, …]` and `[M, …]` as they come; the networks' weights stay as they are."""
    assert network.labelled is not None
    x, strange = _inputs(network, normal), _inputs(network, anomalous)
    copies = _copies(network, strange, random)
    half = len(x) // 2
    rows = _join(_views(network, x), _views(network, copies))
    labels = torch.arange(len(x) + len(copies), device=x.device) >= len(x)
    co_train(network.labelled, rows, labels, _views(network, _pool(network, x[:half], copies, random)))


def co_train(evidence: LabelledEvidence, rows: Views, anomalous: Tensor, pool: Views) -> None:
    """Both views of records with labels, `[N]` bool, and of records without: each classifier labels some for both."""
    for _ in range(ROUNDS):
        _fit(evidence, rows, anomalous)
        verdicts = [evidence.first(pool[0]), evidence.second(pool[1])]
        sure = torch.unique(torch.cat([_surest(odds) for odds in verdicts] + [_surest(-odds) for odds in verdicts]))
        if len(sure) == 0:
            return
        # Where they disagree, the surer one has it.
        said = torch.stack(verdicts)[:, sure]  # (2, S)
        labels = said.gather(0, said.abs().argmax(dim=0, keepdim=True))[0] > 0.0
        rows = _join(rows, (pool[0][sure], pool[1][sure]))
        anomalous = torch.cat([anomalous, labels])
        left = torch.ones(len(pool[0]), dtype=torch.bool, device=sure.device)
        left[sure] = False
        pool = (pool[0][left], pool[1][left])
    _fit(evidence, rows, anomalous)


def _fit(evidence: LabelledEvidence, rows: Views, anomalous: Tensor) -> None:
    evidence.first.fit(rows[0], anomalous)
    evidence.second.fit(rows[1], anomalous)


def _surest(odds: Tensor) -> Tensor:
    """Indices of the highest log-odds, of those that are high."""
    values, index = odds.topk(min(EACH_ROUND, len(odds)))
    return index[values >= CONFIDENT]


def _inputs(network: Network, records: Tensor) -> Tensor:
    x = network.prepare(records)
    return network.whole(x) if isinstance(network, ImageGanomaly) else x


def _views(network: Network, x: Tensor) -> Views:
    parts = [network.two_views(part) for part in torch.split(x, 256)]
    return torch.cat([first for first, _ in parts]), torch.cat([second for _, second in parts])


def _join(rows: Views, more: Views) -> Views:
    return torch.cat([rows[0], more[0]]), torch.cat([rows[1], more[1]])


def _copies(network: Network, strange: Tensor, random: torch.Generator) -> Tensor:
    """The anomalies and, of pictures, views of them, so that a few do not stand for themselves alone."""
    if not isinstance(network, ImageGanomaly):
        return strange
    index = torch.arange(max(COPIES, len(strange)), device=strange.device) % len(strange)
    return torch.cat([strange, picture_view(strange[index], random)])


def _pool(network: Network, x: Tensor, copies: Tensor, random: torch.Generator) -> Tensor:
    spoil: Callable[[Tensor, torch.Generator], Tensor] = (
        spoil_pictures if isinstance(network, ImageGanomaly) else spoil_windows
    )
    plain = x[torch.randint(len(x), (POOL,), generator=random, device=x.device)]
    spoilt, blended = plain[: POOL // 2], plain[POOL // 2 :]
    other = copies[torch.randint(len(copies), (len(blended),), generator=random, device=x.device)]
    mix = torch.rand(len(blended), *[1] * (x.dim() - 1), generator=random, device=x.device)
    return torch.cat([spoil(spoilt, random), torch.lerp(blended, other, mix)])

from __future__ import annotations

import torch

from model.missing import carry_forward, marked, mean_of_seen

NAN = torch.nan


def test_the_last_observation_is_carried_forward_and_the_first_back() -> None:
    x = torch.tensor([[[NAN, 1.0], [2.0, NAN], [NAN, NAN], [5.0, 4.0]]])
    assert carry_forward(x)[0].T.tolist() == [[2.0, 2.0, 2.0, 5.0], [1.0, 1.0, 1.0, 4.0]]


def test_a_feature_that_is_missing_throughout_is_at_its_median() -> None:
    assert carry_forward(torch.full((1, 3, 2), NAN)).tolist() == torch.zeros(1, 3, 2).tolist()


def test_a_whole_window_is_left_as_it_is() -> None:
    x = torch.randn(2, 5, 3)
    assert carry_forward(x) is x


def test_networks_see_zeros_and_what_is_there() -> None:
    x = torch.tensor([[[NAN, 3.0]]])
    assert marked(x).tolist() == [[[0.0, 3.0, 0.0, 1.0]]]


def test_means_are_of_what_is_seen() -> None:
    values = torch.tensor([[1.0, 5.0], [3.0, 7.0]])
    seen = torch.tensor([[True, False], [True, False]])
    assert mean_of_seen(values, seen, 0).tolist() == [2.0, 0.0]

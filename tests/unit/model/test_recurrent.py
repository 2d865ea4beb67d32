from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.attention import MapAttention, SelfAttention
from model.config import ImageConfig
from model.image import ImageGanomaly
from model.recurrent import RowDecoder, RowEncoder


@pytest.mark.parametrize("generator", ["conv", "lstm"])
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (11, 60, 3)])
def test_every_generator_takes_and_makes_pictures_of_the_same_shape(
    generator: str, attention: bool, shape: tuple[int, int, int]
) -> None:
    config = replace(ImageConfig.for_shape(*shape), generator=generator, attention=attention, memory=3)
    network = ImageGanomaly(config).eval()
    x = network.whole(network.prepare(torch.randint(0, 256, (3, *shape), dtype=torch.uint8)))
    z, output = network.generate(x)
    assert z.shape == (3, config.latent)
    assert output.shape == x.shape
    assert output.abs().max() <= 1.0
    assert network.encoder(x)[1].shape == (3, network.encoder.features)


def test_attention_starts_as_if_it_were_not_there_and_learns() -> None:
    attention = SelfAttention(16)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attention(x), x)
    attention(x).square().sum().backward()
    assert attention.gate.grad is not None
    assert attention.gate.grad != 0


def test_attention_adds_the_mean_of_the_values_by_how_well_keys_answer() -> None:
    attention = SelfAttention(8).double()
    torch.nn.init.constant_(attention.gate, 0.5)
    x = np.random.default_rng(0).normal(size=(3, 8))
    query, key, value, widen = (
        getattr(attention, name).weight.detach().numpy() for name in ("query", "key", "value", "widen")
    )
    answers = np.exp((x @ query.T) @ (x @ key.T).T)
    expected = x + 0.5 * (answers / answers.sum(axis=1, keepdims=True)) @ (x @ value.T) @ widen.T
    np.testing.assert_allclose(attention(torch.from_numpy(x)[None])[0].detach().numpy(), expected)


def test_attention_over_a_map_is_attention_over_its_places() -> None:
    attention = MapAttention(8)
    torch.nn.init.constant_(attention.gate, 1.0)
    x = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(0))
    found = attention(x)
    assert found.shape == x.shape
    places = SelfAttention.forward(attention, x.flatten(2).transpose(1, 2))
    assert torch.equal(found[1, :, 2, 3], places[1, 11])


def test_rows_are_read_in_order() -> None:
    config = replace(ImageConfig.for_shape(16, 16, 1), generator="lstm")
    encoder = RowEncoder(config, 4)
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    turned = torch.cat([x[:, :, 8:], x[:, :, :8]], dim=2)
    assert not torch.allclose(encoder(x)[0], encoder(turned)[0], atol=1e-4)


def test_a_rows_decoder_writes_all_channels() -> None:
    config = replace(ImageConfig.for_shape(16, 16, 3), generator="lstm")
    picture = RowDecoder(config, 4)(torch.randn(2, config.latent, generator=torch.Generator().manual_seed(0)))
    assert picture.shape == (2, 3, 16, 16)
    assert picture.var(dim=1).mean().item() > 0


def test_an_unknown_generator_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="generator must be one of conv, lstm, not 'gru'"):
        replace(ImageConfig.for_shape(8, 8, 1), generator="gru")

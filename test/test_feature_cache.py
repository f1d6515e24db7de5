# Copyright 2026 The mapanything_ros Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Features are computed once a keyframe, size and precision, and dropped with the window."""

import numpy as np
import pytest
import torch

from mapanything_ros.core.backends.mapanything.feature_cache import FeatureCache


class Encoder:
    """Makes features of the image alone, in one batch, as chunks of one tensor."""

    def __init__(self, with_registers: bool = True) -> None:
        self.batches: list[list[str]] = []
        self.with_registers = with_registers

    def __call__(self, views):
        self.batches.append([view['instance'][0] for view in views])
        images = torch.cat([view['img'] for view in views])
        features = (images * 2).chunk(len(views))
        return features, images.mean((2, 3))[..., None].chunk(
            len(views)) if self.with_registers else None


def view(number: int, width: int = 28):
    generator = torch.Generator().manual_seed(number)
    return {
        'img': torch.rand(1, 3, 14, width, generator=generator), 'instance': [str(number)]}


@pytest.mark.parametrize('with_registers', [True, False])
def test_views_that_stay_are_not_encoded_again(with_registers):
    encoder = Encoder(with_registers)
    cache = FeatureCache(encoder)
    for window in ([0, 1, 2, 3], [2, 3, 4], [4, 2, 5], [2, 4]):
        views = [view(number) for number in window]
        features, registers = cache(views)
        expected, expected_registers = Encoder(with_registers)(views)
        assert all(torch.equal(a, b) for a, b in zip(features, expected, strict=True))
        if with_registers:
            assert all(
                torch.equal(a, b) for a, b in zip(registers, expected_registers, strict=True))
        else:
            assert registers is None
    assert encoder.batches == [['0', '1', '2', '3'], ['4'], ['5']]
    assert (cache.computed, cache.reused) == (6, 6)


def test_what_a_call_does_not_name_is_dropped():
    encoder = Encoder()
    cache = FeatureCache(encoder)
    for window in ([0, 1], [1, 2], [0, 1]):
        cache([view(number) for number in window])
    assert encoder.batches == [['0', '1'], ['2'], ['0']]


def test_another_size_or_precision_is_encoded_anew():
    encoder = Encoder()
    cache = FeatureCache(encoder)
    cache([view(0)])
    cache([view(0, width=42)])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cache([view(0, width=42)])
        cache([view(0, width=42)])
    assert len(encoder.batches) == 3


def test_what_is_kept_shares_no_memory_with_the_batch():
    encoded = []

    def encode(views):
        batch = torch.cat([v['img'] for v in views])
        encoded.append(batch)
        return batch.chunk(len(views)), None

    cache = FeatureCache(encode)
    cache([view(0), view(1)])
    encoded[0].zero_()
    features, _ = cache([view(0), view(1)])
    assert all(feature.abs().sum() > 0 for feature in features)
    assert features[0].untyped_storage().nbytes() == features[0].nbytes


def test_a_failure_leaves_the_cache_as_it_was():
    encoder = Encoder()
    cache = FeatureCache(encoder)
    cache([view(0), view(1)])
    with pytest.raises(RuntimeError):
        cache([view(0), {'img': torch.rand(1, 3, 7, 7), 'instance': ['2']}, view(3)])
    cache([view(0), view(1)])
    assert encoder.batches == [['0', '1'], ['2', '3']]
    cache.clear()
    cache([view(0)])
    assert encoder.batches[-1] == ['0']


def test_nothing_is_kept_where_that_is_not_wanted():
    encoder = Encoder()
    cache = FeatureCache(encoder, keep=False)
    first, _ = cache([view(0), view(1)])
    second, _ = cache([view(0), view(1)])
    assert encoder.batches == [['0', '1'], ['0', '1']]
    assert (cache.computed, cache.reused) == (4, 0)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_views_are_described_by_the_mean_direction_of_their_patches():
    cache = FeatureCache(Encoder(), describe=True)
    features, _ = cache([view(0), view(1)])
    fresh = cache.descriptors
    for feature, descriptor in zip(features, fresh, strict=True):
        patches = feature[0].reshape(feature.shape[1], -1).T.double().numpy()
        mean = (patches / np.linalg.norm(patches, axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(descriptor, mean / np.linalg.norm(mean), atol=1e-6)
    cache([view(1), view(2)])
    torch.testing.assert_close(cache.descriptors[0], fresh[1], rtol=0, atol=0)

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

"""Covariances of poses are as large as the errors that they stand for."""

from contextlib import suppress
from dataclasses import replace

from helpers import rigid
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.evaluate.drive import frame
from benchmarks.evaluate.runs import TYPICAL
from benchmarks.evaluate.simulated_backend import Faults, SimulatedBackend
from benchmarks.evaluate.worlds import world
from mapanything_ros.core.alignment import Alignment
from mapanything_ros.core.config import AlignmentConfig, ScaleConfig
from mapanything_ros.core.errors import AlignmentError
from mapanything_ros.core.uncertainty import Uncertainty

ROUGH = Faults(scale=0.1, rotation_deg=0.5, translation=0.03, depth_noise=0.01, depth_bias=0.01)


def nees(error, covariance):
    """Return the normalised error squared by degree of freedom, 1 on average if all is right."""
    return float(error @ np.linalg.solve(covariance, error)) / len(error)


def error_of(pose, truth):
    """Return the error (6,) of a pose in the order of PoseWithCovariance, along the map's axes."""
    turn = Rotation.from_matrix(pose[:3, :3] @ truth[:3, :3].T).as_rotvec()
    return np.concatenate([pose[:3, 3] - truth[:3, 3], turn])


# Against the errors that it assumes


def disturbed(pose, rng, rad, metres):
    """Return a pose of a view with an error of its own."""
    moved = pose @ rigid(Rotation.from_rotvec(rad * rng.standard_normal(3)), [0, 0, 0])
    moved[:3, 3] += metres * rng.standard_normal(3)
    return moved


def mean_motion(before, after):
    """Return the rigid motion that brings poses to those before, on average."""
    turns = [b[:3, :3] @ a[:3, :3].T for b, a in zip(before, after, strict=True)]
    turn = Rotation.from_matrix(turns).mean()
    moves = [b[:3, 3] - turn.apply(a[:3, 3]) for b, a in zip(before, after, strict=True)]
    return rigid(turn, np.mean(moves, axis=0))


def chain(seed, rad=0.004, metres=0.01, windows=20, overlap=3):
    """Join windows of six views, three of them new, along a path; return the last's error."""
    rng = np.random.default_rng(seed)
    truth = [
        rigid(Rotation.from_euler('zy', [0.03 * i, 0.1 * np.sin(i)]), [0.2 * i, 0.004 * i**2, 1])
        for i in range(3 * windows + 3)]
    known = Uncertainty()
    known.expect(2.0)
    placed = {}
    for start in range(0, 3 * windows, 3):
        numbers = range(start, start + 6)
        first = np.linalg.inv(disturbed(truth[start], rng, rad, metres))
        views = {n: first @ disturbed(truth[n], rng, rad, metres) for n in numbers if n > start}
        views[start] = np.eye(4)
        shared = [n for n in numbers if n in placed][-overlap:]
        if shared:
            motion = mean_motion([placed[n] for n in shared], [views[n] for n in shared])
        else:
            motion = truth[0]
        after = {n: motion @ view for n, view in views.items()}
        if shared:
            known.follow([placed[n] for n in shared], [after[n] for n in shared], 0.0)
        else:
            known.begin(after[start], 0.0)
        placed = {n: placed.get(n, pose) for n, pose in after.items()}
    last = max(placed)
    return error_of(placed[last], truth[last]), known.at(placed[last])


@pytest.mark.parametrize(('rad', 'metres'), [(0.004, 0.01), (0.02, 0.002), (0.0005, 0.05)])
def test_a_chain_of_windows_errs_as_it_says(rad, metres):
    found = [chain(seed, rad, metres) for seed in range(60)]
    place = np.mean([nees(error[:3], covariance[:3, :3]) for error, covariance in found])
    turn = np.mean([nees(error[3:], covariance[3:, 3:]) for error, covariance in found])
    assert 0.6 < place < 1.6 and 0.6 < turn < 1.6, (place, turn)


def test_an_error_of_scale_shows_along_the_path_and_grows_with_it():
    known = Uncertainty()
    known.expect(1e-6)
    poses = [rigid(Rotation.identity(), [i, 0, 0]) for i in range(11)]
    known.begin(poses[0], 0.1)
    for index in range(10):
        known.follow([poses[index]] * 3, [poses[index]] * 3, 0.1)
    covariance = known.at(poses[10])
    # Always the same 10 % of 10 m.
    assert np.sqrt(covariance[0, 0]) == pytest.approx(1.0, rel=0.01)
    assert np.sqrt(np.diag(covariance)[1:3]).max() < 0.01
    # What becomes known on the way counts from there on.
    known.follow([poses[10]] * 3, [poses[10]] * 3, 0.001)
    assert np.sqrt(known.at(poses[10])[0, 0]) == pytest.approx(1.0, rel=0.01)


def test_odometry_that_is_trusted_lets_no_error_add_up():
    known = Uncertainty()
    known.expect(2.0)
    poses = [rigid(Rotation.identity(), [i, 0, 0]) for i in range(50)]
    sizes = []
    for index in range(40):
        window = poses[index:index + 6]
        known.anchor(window[:3] if index else [], window[:3] if index else [], window, 0.01)
        sizes.append(np.trace(known.at(window[-1])))
    assert sizes[-1] <= sizes[0]


def test_a_gap_that_odometry_bridges_is_as_uncertain_as_it_is_long():
    near, far = Uncertainty(), Uncertainty()
    start = np.eye(4)
    for known, length_m in ((near, 1.0), (far, 5.0)):
        known.expect(2.0)
        known.begin(start, 0.0)
        known.bridge(start, rigid(Rotation.identity(), [length_m, 0, 0]), 0.0)
    sizes = [np.sqrt(known.at(rigid(Rotation.identity(), [length_m, 0, 0]))[0, 0])
             for known, length_m in ((near, 1.0), (far, 5.0))]
    assert sizes == pytest.approx([0.1, 0.5], rel=0.1)


# Against the errors of a simulated network


@pytest.fixture(scope='module')
def place():
    """Give the first metres of the corridor, with odometry that does not drift."""
    made = world('corridor', images=48)
    start = np.linalg.inv(made.world_from_camera[0])
    return replace(made, odom_from_camera=start @ made.world_from_camera)


def errors(place, faults, seed, scale):
    """Return errors (6,) and covariances (6,6) of all keyframes but the first."""
    backend = SimulatedBackend(place, faults, seed)
    alignment = Alignment(AlignmentConfig(), ScaleConfig(scale), trust_odometry=False)
    keyframes = [frame(place, number).keyframe(number) for number in range(len(place))]
    poses = {}
    for first in range(0, len(place) - 5, 3):
        window = keyframes[first:first + 6]
        with suppress(AlignmentError):  # an outlier
            submap = alignment.place(backend.infer(window), window)
            poses |= {
                view.keyframe_id: (
                    submap.map_from_camera(view), submap.covariances[view.keyframe_id])
                for view in submap.views if view.keyframe_id in submap.new_ids}
    true = place.world_from_camera
    start = min(poses)
    map_from_world = poses[start][0] @ np.linalg.inv(true[start])
    return [
        (error_of(pose, map_from_world @ true[number]), covariance)
        for number, (pose, covariance) in poses.items() if number != start]


@pytest.mark.parametrize(('faults', 'scale'), [
    (TYPICAL, 'model'), (TYPICAL, 'odometry'), (ROUGH, 'model')])
def test_covariances_are_within_a_factor_of_two_of_the_errors(place, faults, scale):
    found = [pair for seed in range(1, 5) for pair in errors(place, faults, seed, scale)]
    for _, covariance in found:
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-15)
        assert np.linalg.eigvalsh(covariance).min() > 0
    # Standard deviations within a factor of two: the square within four.
    sizes = {
        what: np.mean([nees(error[part], covariance[part, part]) for error, covariance in found])
        for what, part in (('position', slice(0, 3)), ('rotation', slice(3, 6)))}
    assert all(0.25 < size < 4.0 for size in sizes.values()), sizes


def test_a_network_that_errs_more_says_so(place):
    small, large = (
        np.mean([np.sqrt(np.diag(covariance)) for _, covariance in errors(
            place, faults, 1, 'odometry')], axis=0) for faults in (TYPICAL, ROUGH))
    assert (large[3:] > 2 * small[3:]).all(), 'rotation of 0.5 degrees against 0.1'
    assert (large[:3] > 1.3 * small[:3]).all()

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

"""
Every parameter: name, default, meaning and bounds, and nowhere else.

The ROS parameters are declared from these classes; a nested class gives dotted names
(``keyframes.min_translation_m``). Values are checked on construction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, Field, field, fields, is_dataclass
import math
import re
from typing import Any, TypeVar

from mapanything_ros.core.errors import ConfigError


def option(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """
    Declare a parameter: its default, its meaning, and the inclusive bounds or the choices.

    ``<number>`` in a choice stands for any whole number.
    """
    metadata = {
        'description': description,
        'minimum': minimum,
        'maximum': maximum,
        'choices': choices,
    }
    return field(default=default, metadata=metadata)


def section(cls: type, *, inline: bool = False) -> Any:
    """Declare a group of parameters; those of an inline group have no prefix."""
    return field(default_factory=cls, metadata={'inline': inline})


class Checked:
    """Refuses, on construction, values of the wrong type or out of bounds."""

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            if 'description' in item.metadata:
                _check(item, getattr(self, item.name))


def _check(item: Field[Any], value: Any) -> None:
    name, meta = item.name, item.metadata
    expected = type(item.default)
    if type(value) is not expected:
        raise ConfigError(f'{name} must be {expected.__name__}, got {value!r}')
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f'{name} must be a finite number, got {value}')
    if meta['choices'] and not any(_chosen(choice, value) for choice in meta['choices']):
        raise ConfigError(f'{name} must be one of {", ".join(meta["choices"])}; got {value!r}')
    low, high = meta['minimum'], meta['maximum']
    if low is not None and value < low or high is not None and value > high:
        bounds = f'at least {low}' if high is None else f'between {low} and {high}'
        raise ConfigError(f'{name} must be {bounds}, got {value}')


def _chosen(choice: str, value: Any) -> bool:
    return bool(re.fullmatch(re.escape(choice).replace('<number>', r'\d+'), value))


@dataclass(frozen=True)
class KeyframesConfig(Checked):
    """When a frame becomes a keyframe."""

    min_translation_m: float = option(
        0.2, 'With odometry: a frame this far from the last keyframe becomes one.',
        minimum=0.001, maximum=100.0)
    min_rotation_deg: float = option(
        12.0, 'With odometry: a frame turned this far from the last keyframe becomes one.',
        minimum=0.1, maximum=180.0)
    min_parallax: float = option(
        0.06, 'Without odometry: median optical flow since the last keyframe, as a share of the '
        'image width, that makes a keyframe.', minimum=0.001, maximum=1.0)
    max_interval_s: float = option(
        2.0, 'Without odometry and where flow cannot be measured (no texture): a keyframe this '
        'long after the last one; 0 is never.', minimum=0.0, maximum=3600.0)
    min_sharpness: float = option(
        0.5, 'A frame less sharp than this share of its recent peers is refused as blurred; '
        '0 accepts all.', minimum=0.0, maximum=1.0)


@dataclass(frozen=True)
class WindowConfig(Checked):
    """How keyframes are grouped for one call of the backend."""

    size: int = option(
        6, 'Keyframes in a window; with 1 (MapAnything alone) each stands for itself, and only '
        'odometry can tie them.', minimum=1, maximum=1000)
    overlap: int = option(
        3, 'Keyframes that a window shares with the one before; windows are joined through them.',
        minimum=0, maximum=999)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap >= self.size:
            raise ConfigError(
                f'window.overlap must be less than window.size ({self.size}), got {self.overlap}')


@dataclass(frozen=True)
class MapAnythingConfig(Checked):
    """Which MapAnything is loaded, and what it is given."""

    weights: str = option(
        'facebook/map-anything-apache', 'A folder with config.json and model.safetensors, or a '
        "Hugging Face id that is in this machine's cache (weights fetch). Nothing is downloaded "
        'at run time. facebook/map-anything is for non-commercial use alone.')
    size_px: int = option(
        518, 'Longest side of the images that the network sees; 518 is what it was trained on. '
        'Smaller is faster, and needs less memory.', minimum=140, maximum=2072)
    reuse_features: bool = option(
        True, "Keep the encoder's features of keyframes that stay in the window (6.4 MB each "
        'at 518x392) and skip 40 % of the work.')
    compile: bool = option(
        False, 'Compile the transformer blocks with torch.compile, on start; wants Triton and a C '
        'compiler. Off until a GPU has shown what it gains.')
    channels_last: bool = option(
        False, 'Run the dense head with channels last in memory. Off until a GPU has shown what '
        'it gains.')
    attention: str = option(
        'auto', "Which of torch's kernels computes attention; auto leaves that to torch.",
        choices=('auto', 'flash', 'efficient', 'cudnn', 'math'))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size_px % 14:
            raise ConfigError(
                f'mapanything.size_px must be a multiple of 14, got {self.size_px}')


@dataclass(frozen=True)
class InferConfig(Checked):
    """The arguments of MapAnything's ``infer``, by their own names and with its own defaults."""

    memory_efficient_inference: bool = option(
        False, 'Run the dense head in small batches. The one default that is not the '
        "model's: where all at once does not fit the GPU, the node changes over and says so.")
    minibatch_size: int = option(
        0, 'Views in a batch of the dense head with memory_efficient_inference; 0 is by free '
        'memory.', minimum=0, maximum=1000)
    use_amp: bool = option(
        True, 'Mixed precision; on the CPU it is never used, being slower there.')
    amp_dtype: str = option(
        'bf16', 'Type of mixed precision. GPUs older than Ampere (Turing, Volta) want fp16.',
        choices=('bf16', 'fp16', 'fp32'))
    apply_mask: bool = option(
        True, 'Drop pixels that the network calls ambiguous (sky, reflections).')
    mask_edges: bool = option(
        True, 'With apply_mask: drop pixels at depth edges, where points float in the air.')
    edge_normal_threshold: float = option(
        5.0, 'Degrees between neighbouring normals that make an edge, where depth breaks, too.',
        minimum=0.0, maximum=180.0)
    edge_depth_threshold: float = option(
        0.03, 'Relative difference of neighbouring depths that makes an edge, where normals '
        'break, too.', minimum=0.0, maximum=10.0)
    apply_confidence_mask: bool = option(
        False, 'With apply_mask: drop the least confident pixels of each view. Use it with '
        'use_multiview_confidence: the learned confidence is a poor filter.')
    confidence_percentile: float = option(
        10.0, 'Percentage of pixels that apply_confidence_mask drops.', minimum=0.0,
        maximum=100.0)
    ignore_calibration_inputs: bool = option(
        False, 'Hide camera_info from the network, which then estimates the intrinsics.')
    ignore_depth_inputs: bool = option(False, 'Hide depth from the network.')
    ignore_pose_inputs: bool = option(
        False, 'Hide odometry from the network; windows are placed by it all the same.')
    ignore_depth_scale_inputs: bool = option(
        False, 'Do not let depth set the metric scale.')
    ignore_pose_scale_inputs: bool = option(
        False, 'Do not let odometry set the metric scale.')
    use_multiview_confidence: bool = option(
        False, 'Confidence is the share of views that agree with a pixel, in place of what the '
        'network has learned.')
    multiview_conf_depth_abs_thresh: float = option(
        0.02, 'Metres of depth, plus the relative share, up to which two views agree.',
        minimum=0.0, maximum=100.0)
    multiview_conf_depth_rel_thresh: float = option(
        0.02, 'Share of the depth, plus the absolute part, up to which two views agree.',
        minimum=0.0, maximum=1.0)


@dataclass(frozen=True)
class ColmapConfig(Checked):
    """The classical backend: structure from motion and a plane sweep."""

    width_px: int = option(
        320, 'Width of the depth images; wider is slower by the square.',
        minimum=64, maximum=4096)
    max_features: int = option(
        2048, 'SIFT features per image in structure from motion.', minimum=100, maximum=20000)
    planes: int = option(
        96, 'Inverse-depth planes of the sweep.', minimum=8, maximum=1024)
    sources: int = option(
        4, 'Neighbours that each view is matched with, at most.', minimum=1, maximum=16)
    min_depth_m: float = option(
        0.3, 'Nearest depth that is looked for where the scale is metric.', minimum=0.01,
        maximum=1000.0)
    max_depth_m: float = option(
        10.0, 'Farthest depth that is looked for where the scale is metric.', minimum=0.1,
        maximum=10000.0)
    consistent_views: int = option(
        2, 'Other views that must agree with a depth for it to be kept.', minimum=1, maximum=16)
    consistency: float = option(
        0.04, 'Relative difference of depth up to which two views agree.', minimum=0.0001,
        maximum=0.5)
    refine_poses: bool = option(
        True, 'Adjust trusted poses to the images inside a window, near where they were.')
    min_kept: float = option(
        0.15, 'A window that keeps a smaller share of its pixels has failed.', minimum=0.0,
        maximum=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_depth_m >= self.max_depth_m:
            raise ConfigError(
                f'colmap.min_depth_m ({self.min_depth_m}) must be less than colmap.max_depth_m '
                f'({self.max_depth_m})')


@dataclass(frozen=True)
class AlignmentConfig(Checked):
    """When a window is rejected."""

    min_inliers: float = option(
        0.6, 'A window of whose keyframes a smaller share fits what the map, and odometry, say of '
        'them is rejected.', minimum=0.0, maximum=1.0)


@dataclass(frozen=True)
class ScaleConfig(Checked):
    """Where metres come from."""

    source: str = option(
        'model', "What anchors a window's scale: model (what the backend says; with pose_use "
        'fixed the odometry), odometry (distances between keyframes, needs tf.odom_frame) or '
        'depth (the depth images, needs use_depth).', choices=('model', 'odometry', 'depth'))


@dataclass(frozen=True)
class MapConfig(Checked):
    """The accumulated map."""

    voxel_m: float = option(
        0.02, 'Edge of a voxel; one point is kept in each.', minimum=0.001, maximum=10.0)
    max_points: int = option(
        2_000_000, 'Voxels kept at most; what many keyframes saw gives way first, then what was '
        'not seen for longest. Up to 250 bytes of memory each.', minimum=1000,
        maximum=100_000_000)
    radius_m: float = option(
        0.0, 'What lies farther than this from the newest camera is dropped; 0: nothing.',
        minimum=0.0, maximum=1e6)
    min_views: int = option(
        2, 'Keyframes that must have seen a voxel before it is published.', minimum=1,
        maximum=100)
    period_s: float = option(
        2.0, 'Least time between two publications of ~/map_updates and ~/path.', minimum=0.0,
        maximum=3600.0)
    full_period_s: float = option(
        10.0, 'Least time between two publications of ~/map, which is the whole map.',
        minimum=0.0, maximum=3600.0)


@dataclass(frozen=True)
class LoopClosureConfig(Checked):
    """When the camera comes back to a place, and the map is corrected by that."""

    enabled: bool = option(
        True, 'Recognise places by their looks, verify them by geometry, and correct path and map '
        'when the camera is back. With pose_use fixed odometry is the truth, and nothing is '
        'corrected.')
    min_gap_m: float = option(
        5.0, 'Path after which the same place counts as a loop.', minimum=0.1, maximum=10000.0)
    max_drift: float = option(
        0.1, 'A loop that would move the camera by more than this share of the path since it was '
        'there is refused.', minimum=0.001, maximum=1.0)
    min_inliers: int = option(
        12, 'Points of both pictures that must fit one relative pose.', minimum=6, maximum=300)
    min_consistent: int = option(
        3, 'Keyframes nearly in a row that must tell the same before any of them counts.',
        minimum=2, maximum=100)
    max_keyframes: int = option(
        3000, 'Keyframes that are recognised, 60 kB each; beyond that the oldest go first of '
        'those that have most others near them.', minimum=30, maximum=1_000_000)


@dataclass(frozen=True)
class TfConfig(Checked):
    """Frames, and which transform the node publishes."""

    map_frame: str = option(
        'map', 'The map (REP-105): z is up where odometry, an IMU or the mounting on a level base '
        'says so.')
    odom_frame: str = option('', 'The odometry frame; empty: there is no odometry.')
    base_frame: str = option(
        '', 'The robot; empty: the camera is not mounted on anything that TF knows.')
    mode: str = option(
        'auto', 'map_to_odom (REP-105), map_to_camera (to base_frame, or to the camera where '
        'that is empty), none; auto is map_to_odom with an odom_frame, else map_to_camera.',
        choices=('auto', 'map_to_odom', 'map_to_camera', 'none'))
    rate_hz: float = option(
        20.0, 'Rate at which map->odom, or where a camera that stands still is, is sent again.',
        minimum=0.1, maximum=1000.0)
    tolerance_s: float = option(
        0.2, 'How far into the future map->odom is valid, as with AMCL, so that who asks for now '
        'need not wait for the next one.', minimum=0.0, maximum=10.0)
    timeout_s: float = option(
        0.5, 'How long an image waits for its transform, depth and camera_info.', minimum=0.0,
        maximum=60.0)


@dataclass(frozen=True)
class OutputConfig(Checked):
    """Where ~/save writes."""

    directory: str = option(
        'mapanything_output', 'Folder of ~/save; nothing is ever written outside of it.')


@dataclass(frozen=True)
class Config(Checked):
    """All parameters of the node and of the offline tools."""

    backend: str = option(
        'mapanything', 'What reconstructs a window: mapanything (the network; wants a GPU and '
        'weights) or colmap (classical; calibrated, textured, static scenes).',
        choices=('mapanything', 'colmap'))
    device: str = option(
        'cuda', 'Torch device of the backend; of several GPUs cuda is the first, cuda:1 the '
        'second. There is no fallback: cuda without a GPU is an error.',
        choices=('cpu', 'cuda', 'cuda:<number>'))
    autostart: bool = option(
        True, 'Configure and activate on start; false waits for lifecycle transitions.')
    image_transport: str = option(
        'raw', 'raw reads image; compressed reads image/compressed.',
        choices=('raw', 'compressed'))
    use_camera_info: bool = option(
        True, 'Wait for camera_info: intrinsics and distortion. The colmap backend needs it.')
    rectified: bool = option(
        False, 'The images are rectified already (image_rect): use P and ignore D.')
    use_depth: bool = option(
        False, 'Wait for the depth of each image; images that have none are passed over. Depth '
        'of another frame or size is reprojected, with its own camera_info and TF.')
    # Half a period at 30 Hz: drivers stamp depth some milliseconds off, and cameras that are not
    # triggered together half a period at most.
    depth_slop_s: float = option(
        0.017, 'How far from the stamp of its image depth may be; the nearest is taken.',
        minimum=0.0, maximum=1.0)
    depth_transport: str = option(
        'raw', 'raw reads depth; compressedDepth reads depth/compressedDepth.',
        choices=('raw', 'compressedDepth'))
    use_imu: bool = option(
        False, 'Without odometry: level the map by gravity, from an imu that is at rest for a '
        'second before the robot drives.')
    odometry_source: str = option(
        'tf', 'Where odometry comes from: tf (tf.odom_frame to the camera), or topic (odometry, '
        'nav_msgs/Odometry; it names tf.odom_frame and tf.base_frame where they are empty).',
        choices=('tf', 'topic'))
    pose_source: str = option(
        'none', 'tf: the backend is given camera poses by odometry (tf.odom_frame to the camera); '
        'none: it estimates them.', choices=('none', 'tf'))
    pose_use: str = option(
        'fixed', 'With pose_source tf: fixed puts every window where odometry has it; prior joins '
        'windows by what they see, and corrects odometry (map -> odom).',
        choices=('fixed', 'prior'))
    infer: InferConfig = section(InferConfig, inline=True)
    keyframes: KeyframesConfig = section(KeyframesConfig)
    window: WindowConfig = section(WindowConfig)
    mapanything: MapAnythingConfig = section(MapAnythingConfig)
    colmap: ColmapConfig = section(ColmapConfig)
    alignment: AlignmentConfig = section(AlignmentConfig)
    scale: ScaleConfig = section(ScaleConfig)
    map: MapConfig = section(MapConfig)
    loop_closure: LoopClosureConfig = section(LoopClosureConfig)
    tf: TfConfig = section(TfConfig)
    output: OutputConfig = section(OutputConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pose_source == 'tf' and not self.has_odometry:
            raise ConfigError("pose_source 'tf' needs tf.odom_frame, for example 'odom'")
        named = self.tf.odom_frame and self.tf.base_frame or self.odometry_source == 'topic'
        if self.tf.mode == 'map_to_odom' and not named:
            raise ConfigError("tf.mode 'map_to_odom' needs tf.odom_frame and tf.base_frame")
        if self.scale.source == 'odometry' and not self.has_odometry:
            raise ConfigError("scale.source 'odometry' needs tf.odom_frame, for example 'odom'")
        if self.scale.source == 'depth' and not self.use_depth:
            raise ConfigError("scale.source 'depth' needs use_depth")
        if self.backend == 'colmap' and self.window.size < 2:
            raise ConfigError("window.size must be at least 2 with backend 'colmap'")
        if self.use_depth and not self.use_camera_info:
            raise ConfigError('use_depth needs use_camera_info: depth means nothing without it')

    @property
    def has_odometry(self) -> bool:
        """Say whether odometry tells where the camera was."""
        return bool(self.tf.odom_frame) or self.odometry_source == 'topic'

    @property
    def trusts_odometry(self) -> bool:
        """Say whether keyframes are where odometry has them, and nothing corrects that."""
        return self.pose_source == 'tf' and self.pose_use == 'fixed'

    @property
    def closes_loops(self) -> bool:
        """Say whether the path follows places that are recognised."""
        return self.loop_closure.enabled and not self.trusts_odometry

    @property
    def levels(self) -> bool:
        """Say whether an IMU levels the map: with odometry it begins as that does."""
        return self.use_imu and not self.has_odometry

    @property
    def tf_mode(self) -> str:
        """Return tf.mode with 'auto' resolved."""
        if self.tf.mode != 'auto':
            return self.tf.mode
        return 'map_to_odom' if self.has_odometry else 'map_to_camera'


T = TypeVar('T')


def options(cls: type, prefix: str = '') -> Iterator[tuple[str, Field[Any]]]:
    """Give each parameter's dotted name and its dataclass field, in the order written here."""
    for item in fields(cls):
        if is_dataclass(item.default_factory):
            yield from options(item.default_factory, _prefix(item, prefix))
        else:
            yield prefix + item.name, item


def to_values(config: Any, prefix: str = '') -> dict[str, Any]:
    """Return the values of all parameters by dotted name."""
    values: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(item.default_factory):
            values.update(to_values(value, _prefix(item, prefix)))
        else:
            values[prefix + item.name] = value
    return values


def from_values(cls: type[T], values: Mapping[str, Any]) -> T:
    """
    Build a configuration from dotted names; what is not named keeps its default.

    An unknown name, a wrong type or a value out of bounds raises ConfigError with its name.
    """
    unknown = set(values) - {name for name, _ in options(cls)}
    if unknown:
        raise ConfigError(f'unknown parameter: {", ".join(sorted(unknown))}')
    return _build(cls, values, '')


def _build(cls: type[T], values: Mapping[str, Any], prefix: str) -> T:
    arguments: dict[str, Any] = {}
    for item in fields(cls):  # type: ignore[arg-type]
        name = prefix + item.name
        if is_dataclass(item.default_factory):
            arguments[item.name] = _build(  # type: ignore[type-var]
                item.default_factory, values, _prefix(item, prefix))
        elif name in values:
            arguments[item.name] = values[name]
    try:
        return cls(**arguments)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(prefix) else prefix + text) from None


def _prefix(group: Field[Any], prefix: str) -> str:
    return prefix if group.metadata['inline'] else f'{prefix}{group.name}.'

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

"""Dense metric 3D mapping for robots from plain cameras."""

import os

# OpenMP reads this when torch is loaded. Its threads spin while they wait, which is fine for a
# machine that does nothing else; on a robot's shared cores a window takes 7 times as long.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
# CUDA reads this at its first use. Windows differ in size; segments that can grow do not leave
# memory that is free but in pieces. It goes before its newer name, which a user may have set.
if 'PYTORCH_ALLOC_CONF' not in os.environ:
    os.environ.setdefault('PYTORCH_CUDA_ALLOC_CONF', 'expandable_segments:True')

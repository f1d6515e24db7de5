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
A fake of MapAnything 1.1 that is as strict as the real one and knows the truth.

It has what the backend uses, under the same names: the class with its state dict, ``forward``,
``_encode_n_views`` and the input configuration, and the functions that check and convert views.
``test_mapanything_contract.py`` runs against this and the real package. ``fake_world`` is where
tests say what there is to see.
"""

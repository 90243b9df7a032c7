"""Checks with h5py that a weights file holds what it should.

    python check.py FILE.weights.h5 EXPECTED.json

EXPECTED.json maps the path of each array to its shape and its elements.
"""

import json
import sys

import h5py
import numpy as np

expected = json.load(open(sys.argv[2]))
found = {}
with h5py.File(sys.argv[1]) as file:
    file.visititems(lambda path, node: found.update({path: node[()]}) if isinstance(node, h5py.Dataset) else None)
assert found.keys() == expected.keys(), (found.keys(), expected.keys())
for path, (shape, data) in expected.items():
    assert found[path].dtype == np.float32, path
    assert np.array_equal(found[path], np.array(data, "f4").reshape(shape)), path
print(len(found), "arrays")

"""Checks exported ONNX files with ONNX's own checker and onnxruntime.

    python check.py FOLDER BOUND

For every NAME.onnx in FOLDER, NAME.input and NAME.output hold what the model is given and what
gpucnn computes from it, float32, little-endian. The file must be valid, shapes must be inferred
without a conflict, and onnxruntime must come within BOUND times the largest output. A second
run on the first sample alone shows that the batch is free. Prints a line a file.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def check(path, bound):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    known = {value.name for value in inferred.graph.value_info} | {o.name for o in model.graph.output}
    unknown = [o for node in model.graph.node for o in node.output if o not in known]
    assert not unknown, f"{path.name}: no shape inferred for {unknown}"

    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    given = np.fromfile(path.with_suffix(".input"), "<f4").reshape([-1] + dims[1:])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {model.graph.input[0].name: given})
    expected = np.fromfile(path.with_suffix(".output"), "<f4").reshape(found.shape)
    largest = np.abs(expected).max()
    error = np.abs(found - expected).max() / largest
    [first] = session.run(None, {model.graph.input[0].name: given[:1]})
    error = max(error, np.abs(first - expected[:1]).max() / largest)
    print(f"{path.stem}: {error:.1e} of the largest output, {largest:.3g}")
    return np.isfinite(largest) and error <= bound


def main():
    folder, bound = Path(sys.argv[1]), float(sys.argv[2])
    files = sorted(folder.glob("*.onnx"))
    assert files, f"no files in {folder}"
    over = [path.name for path in files if not check(path, bound)]
    assert not over, f"over {bound}: {over}"


if __name__ == "__main__":
    main()

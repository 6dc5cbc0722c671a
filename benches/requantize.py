#!/usr/bin/env python3
"""Writes a copy of a GGUF file with its matrices in another type, for the benchmark weight_types.

    python3 requantize.py IN.gguf OUT.gguf TYPE      F32, F16, BF16, Q8_0, Q5_1, Q4_1, Q4_0

Vectors, convolutions, tables of positions, and matrices whose rows are not whole blocks are copied unchanged.
"""
# pip install gguf==0.19.0 numpy==2.4.6

import sys

import gguf
import numpy as np


def main():
    source, target, name = sys.argv[1:]
    kind = gguf.GGMLQuantizationType[name]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=element)
    for tensor in reader.tensors:
        shape = [int(length) for length in tensor.shape]
        is_matrix = len(shape) == 2 and min(shape) > 1 and "position_embd" not in tensor.name
        if is_matrix and shape[0] % block == 0:
            values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            writer.add_tensor(tensor.name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()

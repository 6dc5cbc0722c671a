"""mmproj.gguf + the ONNX file its encoder came from -> recipe.txt and own.bin, of which `sharpv pull` makes the mmproj again, byte for byte.
usage: recipe.py MMPROJ ONNX OUTDIR

Every tensor that is an initializer of the ONNX file, quantized as export.py does, becomes a line of the recipe; what is left (header, projector,
position embeddings, padding) goes to own.bin. Needs numpy, gguf, onnx."""
import sys, hashlib, numpy as np, gguf, onnx
from onnx import numpy_helper as nh
mmproj, source, out = sys.argv[1:]
whole = open(mmproj, 'rb').read(); raw = open(source, 'rb').read()
T = gguf.GGMLQuantizationType
def converted(a, kind):
    a = np.ascontiguousarray(a)
    if kind == 'f32': return a.tobytes()
    if kind == 'f16': return a.astype(np.float16).tobytes()
    return gguf.quants.quantize(a, T.Q8_0).tobytes() if a.ndim == 2 and a.shape[1] % 32 == 0 else None
known = {}
for t in onnx.load(source).graph.initializer:
    a = nh.to_array(t)
    at = raw.find(a.tobytes()) if a.dtype == np.float32 and a.size >= 64 else -1
    if at < 0: continue
    for kind in ('f32', 'f16', 'q8_0'):
        rows = a.shape[0] if a.ndim == 2 else 1
        known.setdefault(converted(a, kind), f'{kind} {rows}x{a.size // rows} at {at}')
        if a.ndim == 2: known.setdefault(converted(a.T, kind), f'{kind} {a.shape[1]}x{a.shape[0]} at {at} transposed')
lines, own, done = [], b'', 0
def keep(end):
    global own, done
    if end > done: lines.append(f'own {end - done}'); own += whole[done:end]; done = end
for t in sorted(gguf.GGUFReader(mmproj).tensors, key=lambda t: int(t.data_offset)):
    at, n = int(t.data_offset), int(t.n_bytes)
    line = known.get(whole[at:at + n])
    if line: keep(at); lines.append(line); done = at + n
keep(len(whole))
open(f'{out}/recipe.txt', 'w').write('\n'.join(lines) + '\n'); open(f'{out}/own.bin', 'wb').write(own)
print(len(lines), 'lines,', len(own), 'bytes of own.bin,', len(whole), 'of the whole, SHA-256', hashlib.sha256(whole).hexdigest())

"""However long a movie is, only a few of its frames are in memory."""

import json
import subprocess
import sys

THREADS = 2

# Each job in turn, in a process of its own: the most that it had allocated at once, in frames.
MEASURE = """
import json, os, random, sys, tracemalloc
import numpy as np
import napari_mrcz as nm
from napari_mrcz.format import machine

machine._KEPT_NBYTES = 2**40  # numpy allocates all: what is mapped is not seen by tracemalloc
folder, threads = sys.argv[1], int(sys.argv[2])
shape = 1024, 1536  # 6 MB each: large enough for no more than three to be kept
noise = np.random.default_rng(0).integers(0, 2**16, shape).astype(np.float32)
N = 12

def frames(n):
    for i in range(n):
        yield np.roll(noise, i)

def one_buffer(n):
    buffer = np.empty_like(noise)
    for i in range(n):
        buffer[...] = noise
        buffer[0] = i
        yield buffer

class Plus:
    def __call__(self, frame, index):
        return frame + np.float32(1)
    def describe(self):
        return {}
    def output_dtype(self, dtype):
        return dtype

def path(name):
    return os.path.join(folder, name)

def browse(stack, walk):
    for frame in walk:
        shown = stack[frame]

def write(frames):
    for name in ("out.mrcz", "out.mrc"):
        nm.write(path(name), frames(), threads=threads, overwrite=True)

for name in ("in.mrcz", "in.mrc"):
    nm.write(path(name), frames(N), metadata={"a": 1})
packed, plain = nm.open(path("in.mrcz")), nm.open(path("in.mrc"))
chance = random.Random(0)
jobs = {
    "open": lambda: [nm.open(path("in.mrcz")) for _ in range(20)],
    "forwards": lambda: browse(packed, range(N)),
    "backwards, plain": lambda: browse(plain, range(N - 1, -1, -1)),
    "at random": lambda: browse(packed, [chance.randrange(N) for _ in range(24)]),
    "windows": lambda: [packed[i, :9, :9] for i in range(N)],
    "windows, plain": lambda: [plain[i, :9, :9] for i in range(N)],
    "corrected": lambda: browse(packed.apply(Plus()), range(N)),
    "verify": lambda: nm.verify(path("in.mrcz"), threads=threads),
    "save": lambda: write(lambda: packed),
    "save corrected": lambda: write(lambda: packed.apply(Plus())),
    "save 8 from a generator": lambda: write(lambda: frames(8)),
    "save 16 from a generator": lambda: write(lambda: frames(16)),
    "save 16 from one buffer": lambda: write(lambda: one_buffer(16)),
}
found = {}
nm.verify(path("in.mrcz"))  # modules are imported and, where no bytecode is kept, compiled
for name, job in jobs.items():
    for stack in (packed, plain):
        stack.close()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    job()
    found[name] = (tracemalloc.get_traced_memory()[1] - before) / noise.nbytes
    tracemalloc.stop()
print(json.dumps(found))
"""

MOST = {
    "open": 0.05,
    "forwards": 5.2,  # four, and two compressed ones
    "backwards, plain": 4.1,
    "at random": 5.2,
    "windows": 2.1,
    "windows, plain": 1.1,
    "corrected": 6.1,
    "verify": 2 * THREADS + 1,
    "save": THREADS + 3.1,
    "save corrected": THREADS + 3.4,  # and buffers of each thread, 1 MB
    # What makes frames one by one has one of its own, and each is copied before the next is asked
    # for; what they are compressed into may be as large.
    "save 8 from a generator": 3 * THREADS + 3,
    "save 16 from a generator": 3 * THREADS + 3,
    "save 16 from one buffer": 3 * THREADS + 3,
}


def test_few_frames_are_in_memory_whatever_is_done(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(THREADS)],
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == MOST.keys()
    assert {name: frames for name, frames in found.items() if frames > MOST[name]} == {}
    longer, shorter = found["save 16 from a generator"], found["save 8 from a generator"]
    assert longer < shorter + 3


MANY = """
import os, struct, sys, tracemalloc
import numpy as np
import napari_mrcz as nm

path, n = sys.argv[1], 5_000

def use(stack):
    yield
    assert nm.verify(path).frames == len(stack)
    assert int(np.asarray(stack[:, 0, 0]).sum()) == len(stack)
    yield
    assert (stack.sum() == len(stack)).all()
    yield

nm.write(path, np.ones((1, 4, 4), np.int16))
with nm.open(path) as stack:
    list(use(stack))  # modules are imported and, where no bytecode is kept, compiled
content = bytearray(open(path, "rb").read())
struct.pack_into("<i", content, 8, n)
open(path, "wb").write(content + content[1024:] * (n - 1))
tracemalloc.start()
with nm.open(path) as stack:
    assert len(stack) == n
    print(*[tracemalloc.get_traced_memory()[1] for _ in use(stack)])
"""


def test_very_many_small_frames_take_no_more_than_their_pixels(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path / "many.mrc")],
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    opened, read, summed = map(int, done.stdout.split())
    assert opened < 0.1e6
    assert read < 0.3e6
    assert summed < 0.3e6

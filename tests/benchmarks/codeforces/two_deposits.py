import os

numbers = list(map(int, os.read(0, 1 << 20).split()))
pairs = zip(numbers[1::2], numbers[2::2], strict=True)
os.write(1, "".join(f"{a if a >= b else max(0, 2 * a - b)}\n" for a, b in pairs).encode())

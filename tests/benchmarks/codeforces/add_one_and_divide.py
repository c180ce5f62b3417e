import sys


def after(x, y, k):
    while k and x != 1:
        step = y - x % y
        if step > k:
            return x + k
        x, k = x + step, k - step
        while x % y == 0:
            x //= y
    return 1 + k % (y - 1) if k else x


data = iter(sys.stdin.buffer.read().split())
for _ in range(int(next(data))):
    print(after(int(next(data)), int(next(data)), int(next(data))))

import sys
from math import isqrt


def points(r):
    """A quarter turn maps x >= 0, y > 0 onto the rest of the plane."""
    total = 0
    for x in range(r + 1):
        inner, outer = r * r - x * x, (r + 1) ** 2 - x * x - 1
        first = isqrt(inner - 1) + 1 if inner > 0 else 1
        total += isqrt(outer) - max(1, first) + 1
    return 4 * total


if __name__ == "__main__":
    t, *radii = map(int, sys.stdin.read().split())
    print("\n".join(str(points(r)) for r in radii[:t]))

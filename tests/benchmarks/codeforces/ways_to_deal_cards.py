from functools import reduce
from math import comb

MOD = 998244353
suits, ranks = map(int, input().split())
half = ranks // 2
# ways[e]: hands of one suit that leave 2 e cards over and none unbeaten: paths that never go below zero.
ways = [(comb(ranks, half - e) - (comb(ranks, half - e - 1) if half > e else 0)) % MOD for e in range(half + 1)]


def product(a, b):
    total = [0] * (half + 1)
    for i, x in enumerate(a):
        for j in range(half + 1 - i):
            total[i + j] += x * b[j]
    return [t % MOD for t in total]


def power(a, n):
    squares = [a]
    while 1 << len(squares) <= n:
        squares.append(product(squares[-1], squares[-1]))
    one = [1] + [0] * half
    return reduce(product, (s for i, s in enumerate(squares) if n >> i & 1), one)


print(sum(x * y for x, y in zip(power(ways, suits - 1), ways, strict=True)) % MOD)

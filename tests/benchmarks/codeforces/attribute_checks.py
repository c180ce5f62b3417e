import sys
from itertools import accumulate

_, points, *records = map(int, sys.stdin.read().split())
# best[i]: checks passed with i points in intelligence; change: a difference array of the checks since the last point.
best, change, got = [0] * (points + 1), [0] * (points + 2), 0
for r in records:
    if r > 0 and r <= got:
        change[r] += 1
        change[got + 1] -= 1
    elif r < 0 and -r <= got:
        change[0] += 1
        change[got + r + 1] -= 1
    elif r == 0:
        best = [b + c for b, c in zip(best, accumulate(change), strict=False)]
        best = [best[0]] + [max(best[i], best[i - 1]) for i in range(1, points + 1)]
        change, got = [0] * (points + 2), got + 1
print(max(b + c for b, c in zip(best, accumulate(change), strict=False)))

import sys

rows = [list(map(int, line.split())) for line in sys.stdin][1:]
for p1, p2, p3 in rows:
    total = p1 + p2 + p3
    print(-1 if total % 2 else min(total // 2, p1 + p2))

n = int(input())
games = [tuple(map(int, input().split())) for _ in range(n)]
sure = sum(w for p, w in games if p == 100)
by_chance = {}
for p, w in games:
    if p < 100:
        by_chance.setdefault(p, []).append(w)
# Of one chance p only the 100 / (100 - p) largest can pay; of equal winnings only the likeliest way.
front = {sure: 1.0}
for p, winnings in by_chance.items():
    for w in sorted(winnings, reverse=True)[: 100 // (100 - p)]:
        for total, chance in list(front.items()):
            front[total + w] = max(front.get(total + w, 0.0), chance * p / 100)
print(f"{max(total * chance for total, chance in front.items()):.8f}")

def rings(rows):
    while rows and rows[0]:
        top, bottom, middle = rows[0], rows[-1], rows[1:-1]
        yield top + "".join(row[-1] for row in middle) + bottom[::-1] + "".join(row[0] for row in reversed(middle))
        rows = [row[1:-1] for row in middle]


for _ in range(int(input())):
    n, m = map(int, input().split())
    count = 0
    for ring in rings([input().strip() for _ in range(n)]):
        ring += ring[:3]
        count += sum(ring.startswith("1543", i) for i in range(len(ring) - 3))
    print(count)

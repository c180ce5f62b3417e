class Row:
    def __init__(self, favourite, removed, values):
        self.value = values[favourite - 1]
        self.removed = removed
        self.values = values

    def said(self):
        larger = sum(v > self.value for v in self.values)
        as_large = sum(v >= self.value for v in self.values)
        if as_large <= self.removed:
            return "YES"
        return "NO" if larger >= self.removed else "MAYBE"


for _ in range(int(input())):
    n, f, k = (int(word) for word in input().split())
    print(Row(f, k, [int(word) for word in input().split()]).said())

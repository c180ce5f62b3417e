from itertools import groupby

for _ in range(int(input())):
    s = input().strip()
    runs = sum(1 for _ in groupby(s))
    print(runs - ("01" in s))

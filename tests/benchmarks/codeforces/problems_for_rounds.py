from collections import Counter

for _ in range(int(input())):
    _, rounds = map(int, input().split())
    there = Counter(input())
    print(sum(max(0, rounds - there[level]) for level in "ABCDEFG"))

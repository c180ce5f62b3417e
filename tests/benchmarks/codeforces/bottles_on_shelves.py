import heapq
import sys
from collections import defaultdict

it = map(int, sys.stdin.read().split())
for _ in range(next(it)):
    shelves, bottles = next(it), next(it)
    worth = defaultdict(int)
    for _ in range(bottles):
        brand = next(it)
        worth[brand] += next(it)
    print(sum(heapq.nlargest(shelves, worth.values())))

MOD = 10**9 + 7
input()
input()
for k in map(int, input().split()):
    print(pow(2, k, MOD))

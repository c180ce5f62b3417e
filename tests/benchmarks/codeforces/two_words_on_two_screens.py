from os.path import commonprefix

for _ in range(int(input())):
    words = [input().strip(), input().strip()]
    shared = len(commonprefix(words))
    print(sum(map(len, words)) - max(0, shared - 1))

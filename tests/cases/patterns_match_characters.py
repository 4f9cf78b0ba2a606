"""`?` and `[...]` stand for a character, not for a byte."""
from harness import *

setup = Setup()
for name in ("a.txt", "ä.txt", "日.txt", "ab.txt", "abc.txt"):
    write(setup.folder("hans") + "/" + name)


def published(pattern):
    result = setup.run("hans", "pub " + pattern, "unp *", args=["-q", "--json"])
    return results(result.stdout)[0].get("published", [])


expected = {
    "?.txt": ["a.txt", "ä.txt", "日.txt"],
    "??.txt": ["ab.txt"],
    "???.txt": ["abc.txt"],
    "[äö].txt": ["ä.txt"],
    "[!a].txt": ["ä.txt", "日.txt"],
}
seen = {pattern: published(pattern) for pattern in expected}
finish(seen == expected, seen)

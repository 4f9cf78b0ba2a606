"""What must hold once the network has healed, for scripts/soak.py."""

import concurrent.futures
import functools
import hashlib
import os
import pathlib
import time

from fileshare_testkit import CommandFailed

# What a program may have more than at its first measurement but one.
THREADS_MORE_MAX = 8
DESCRIPTORS_MORE_MAX = 24
MEMORY_MORE_MAX = 24 << 20


class Broken(Exception):
    """A promise that does not hold."""


def content_of(name, version):
    """The bytes of a version of a name: most files are small, some have several chunk groups."""
    seed = hashlib.sha256(("%s %d" % (name, version)).encode()).digest()
    size = [300, 70_000, 900_000, 2_500_000][seed[0] % 8 // 2 if seed[0] % 8 == 7 else seed[0] % 3]
    header = b"%s %d\n" % (name.encode(), version)
    return header + hashlib.shake_128(header).digest(size)


@functools.lru_cache(maxsize=None)
def digest_of(name, version):
    return hashlib.blake2b(content_of(name, version)).digest()


def check_folder(actor):
    """Every file in the folder has the bytes of one version of its name. Returns the number of files."""
    files = 0
    for path in actor.client.folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        name, content = path.relative_to(actor.client.folder).as_posix(), path.read_bytes()
        words = content.split(b"\n", 1)[0].split(b" ")
        if len(words) != 2 or not words[1].isdigit() or hashlib.blake2b(content).digest() != digest_of(name, int(words[1])):
            raise Broken("%s has wrong bytes in %s" % (actor.user, name))
        files += 1
    return files


def eventually(seconds, check):
    """Repeats `check`, which returns what is wrong or nothing, until it is right."""
    deadline = time.monotonic() + seconds
    while wrong := check():
        if time.monotonic() > deadline:
            raise Broken("%s, %d s after the network has healed" % (wrong, seconds))
        time.sleep(1)


def for_all(actors, check):
    """Runs a check of each client, several at once."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(check, actors))


def check_peers(actors, seconds):
    """Every client sees all others."""
    users = {actor.user for actor in actors}

    def check(actor):
        def wrong():
            missing = users - {actor.user} - set(actor.client.lap())
            return "%s does not see %s" % (actor.user, sorted(missing)) if missing else None

        eventually(seconds, wrong)

    for_all(actors, check)


def check_publications(actors, seconds):
    """Each client publishes what was acknowledged, and what is in its watched folder; no more."""

    def check(actor):
        def wrong():
            wanted = set(actor.published)
            if actor.watches:
                wanted |= {"w/" + path.name for path in actor.client.path("w").iterdir()}
            listed = {file.name for file in actor.client.lpf()}
            return "%s publishes %s in place of %s" % (actor.user, listed - wanted, wanted - listed) if listed != wanted else None

        eventually(seconds, wrong)

    for_all(actors, check)


def check_fetches(actors, dice, seconds):
    """Each client can fetch a file that it sees of another. Returns how many had one to fetch."""
    others = {actor.user: dice.choice([other.user for other in actors if other is not actor]) for actor in actors}

    def check(actor):
        names = actor.client.sch(others[actor.user] + "/")
        names = [name for name in names if name not in actor.published and not name.startswith("w/")]
        if not names:
            return 0

        def wrong():
            try:
                actor.client.get(names[0])
            except CommandFailed as error:
                return str(error)
            return None

        eventually(seconds, wrong)
        return 1

    return sum(for_all(actors, check))


def check_panics(server, actors):
    """No thread of a program that runs has panicked."""
    logs = [("server", server.log)] + [(actor.user, actor.client._program.stderr()) for actor in actors]
    for name, log in logs:
        if "panicked" in log:
            raise Broken("%s: %s" % (name, log[log.index("panicked") :][:500]))


def check_left_behind(folder):
    """Clients that have ended leave no control socket and no unnamed or temporary file, but for unfinished parts of those that
    were killed."""
    sockets = [path.name for path in (folder / "run").rglob("*.sock")]
    if sockets:
        raise Broken("control sockets stay behind: %s" % sockets)
    odd = [path for path in (folder / "clients").rglob(".*") if path.is_file() and path.suffix != ".part"]
    if odd:
        raise Broken("files stay behind: %s" % odd[:5])


class Programs:
    """Memory, descriptors and threads of the programs, measured at rest. A program that was started anew is another one."""

    def __init__(self):
        self.samples = {}

    def measure(self, name, pid):
        status = dict(line.split(":", 1) for line in pathlib.Path("/proc/%d/status" % pid).read_text().splitlines())
        sample = (
            int(status["VmRSS"].split()[0]) << 10,
            len(os.listdir("/proc/%d/fd" % pid)),
            int(status["Threads"]),
        )
        self.samples.setdefault((name, pid), []).append(sample)

    def check(self):
        for (name, pid), samples in self.samples.items():
            if len(samples) > 3:
                first, last = samples[1], samples[-1]
                limits = (max(first[0] * 3 // 2, first[0] + MEMORY_MORE_MAX), first[1] + DESCRIPTORS_MORE_MAX)
                limits += (first[2] + THREADS_MORE_MAX,)
                if any(value > limit for value, limit in zip(last, limits)):
                    raise Broken("%s (%d) leaks memory, descriptors or threads: %s" % (name, pid, samples))

    def table(self):
        lines = ["programs that were measured at rest at least twice: memory in MiB, descriptors, threads, first and last"]
        for (name, _), samples in sorted(self.samples.items(), key=lambda item: (-len(item[1]), item[0]))[:12]:
            if len(samples) > 1:
                first, last = samples[0], samples[-1]
                figures = (first[0] >> 20, last[0] >> 20, first[1], last[1], first[2], last[2])
                lines.append("%8s %3d times: %4d %4d  %4d %4d  %3d %3d" % (name, len(samples), *figures))
        return "\n".join(lines)

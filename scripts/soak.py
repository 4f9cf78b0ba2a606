#!/usr/bin/env python3
"""Runs real clients over a bad network for a long time and checks that nothing leaks and no byte is wrong.

    scripts/soak.py                                   an hour of 100 clients, with programs that it builds
    scripts/soak.py --minutes 3 --clients 12 --no-build
    scripts/soak.py --seed 7                          the same users' acts and faults again, as far as time allows

Clients come and go, publish, withdraw, wait, watch, follow and fetch, each by dice of its own. In a storm, which lasts a minute,
the network loses, repeats, delays and cuts what they send (scripts/soak_network.py), and clients and the server are killed and
stopped for a time. Then the network heals, everyone comes to rest, and this must hold: every client sees all others, each
publishes what was acknowledged, a file of each other can be fetched, every file in every folder is whole and has the bytes of its
name, and memory, descriptors and threads of the programs are what they were. Prints a line for each storm, and in the end what
was done and a table of the programs. Exits with 1 at the first promise that is broken; the folder then stays.

Environment: FS_BIN, a folder with the programs.
"""

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
import types

import fileshare_testkit
import soak_checks
from fileshare_testkit import Client, CommandFailed, CommandTimeout, Error, ProgramEnded, Share
from soak_checks import Broken, content_of

STORM_SECONDS = 60
# For whatever a healed network must let happen.
HEALED_SECONDS = 90
FILES_MAX = 12
# In a storm a command may fail because the server, or all sources, cannot be reached, or because the file has gone, is another
# by now, or the time has run out. Nothing else is an excuse.
STORM_CODES = {3, 5, 6, 7, 124}


class Place:
    """What a client takes for its share: the server is reached over the network, and a command may take long."""

    def __init__(self, share, port):
        self.folder, self.users, self.timeout = share.folder, share.users, 120
        self.server = types.SimpleNamespace(port=port)


class Actor(threading.Thread):
    """A user with a client."""

    def __init__(self, soak, number):
        super().__init__(daemon=True)
        self.soak, self.number, self.user = soak, number, "u%03d" % number
        self.dice = random.Random("%d %d" % (soak.seed, number))
        options = ["--on-exists", "overwrite", "--retry-for", "5", "--listen", "127.0.0.1:%d" % soak.network.tcp[number]]
        options += ["--tcp-only"] if number % 2 else []
        self.client = Client(Place(soak.share, soak.network.udp[number]), self.user, True, options, False)
        # Residents neither leave nor are killed: what they leak shows.
        self.is_resident = number % 10 == 0
        self.watches, self.is_watching = number % 4 == 1, False
        # Names that are published for certain, and those of which it is not known; versions of own files.
        self.published, self.unsure, self.versions = set(), set(), {}
        self.followed = set()
        self.is_resting, self.error = threading.Event(), None
        self.client.path("w").mkdir(exist_ok=True)

    def run(self):
        try:
            while not self.soak.is_over.is_set():
                if self.soak.calm.is_set():
                    self.ensure_running(HEALED_SECONDS)
                    self.settle()
                    self.is_resting.set()
                    self.soak.storming.wait()
                    self.is_resting.clear()
                    continue
                self.act()
        except Exception as error:
            self.error = error
            self.is_resting.set()

    def act(self):
        """One thing that users do; its failure is fine in a storm."""
        acts = [
            (6, self.publish), (3, self.change), (2, self.withdraw), (8, self.fetch), (3, self.wait), (4, self.look),
            (1, self.follow), (2, self.watch), (1, self.leave), (2, self.job), (1, self.attach),
        ]  # fmt: skip
        act = self.dice.choices([act for _, act in acts], [weight for weight, _ in acts])[0]
        if not self.ensure_running(5):
            return
        try:
            act()
            self.soak.count(act.__name__, True)
        except CommandFailed as error:
            self.soak.count(act.__name__, False)
            if error.code not in STORM_CODES:
                raise Broken(str(error))
        except ProgramEnded as error:
            self.check_end(error)
        except CommandTimeout as error:
            raise Broken("%s; the client's notes: %s" % (error, self.client.notes[-3:]))
        except Error as error:
            raise Broken(str(error))
        time.sleep(self.dice.random() * self.soak.pause)

    def check_end(self, error):
        if error.code != -signal.SIGKILL:
            raise Broken(str(error))
        self.soak.count("killed", True)

    def ensure_running(self, seconds):
        """Whether the client runs. In a storm it may fail to log in."""
        deadline = time.monotonic() + seconds
        while not self.client._program.is_running() or self.watches and not self.is_watching:
            try:
                if not self.client._program.is_running():
                    self.is_watching = False
                    self.client._program.end()
                    with self.soak.logins:
                        self.client.start()
                if self.watches:
                    self.client.run("pub --watch w")
                    self.is_watching = True
            except (ProgramEnded, CommandFailed, CommandTimeout) as error:
                if isinstance(error, ProgramEnded) and error.code not in {3, 4, -signal.SIGKILL}:
                    raise Broken("the start of a client: %s" % error)
                self.soak.count("start", False)
                if time.monotonic() > deadline:
                    if self.soak.calm.is_set():
                        raise Broken("%s cannot log in: %s" % (self.user, error))
                    return False
                time.sleep(0.5)
        return True

    # --- acts

    def write(self, name):
        self.versions[name] = self.versions.get(name, 0) + 1
        self.client.write(name, content_of(name, self.versions[name]))

    def publish(self):
        name = "%s/%d" % (self.user, self.dice.randrange(FILES_MAX))
        if self.dice.random() < 0.2:
            name = "common/%d" % self.dice.randrange(3)
            self.client.write(name, content_of(name, 0))
        elif name not in self.versions:
            self.write(name)
        self.publish_names([name])

    def publish_names(self, names):
        self.unsure.update(names)
        to = [self.soak.some_user(self.dice)] if self.dice.random() < 0.1 else []
        self.client.pub(*names, to=to)
        self.published.update(names)
        self.unsure.difference_update(names)

    def change(self):
        own = sorted(name for name in self.published if not name.startswith("common/"))
        if own:
            name = self.dice.choice(own)
            # What is published is another content until this has been published too.
            self.unsure.add(name)
            self.write(name)
            self.publish_names([name])

    def withdraw(self):
        if self.published:
            name = self.dice.choice(sorted(self.published))
            self.unsure.add(name)
            self.published.discard(name)
            self.client.unp(name)
            self.unsure.discard(name)

    def fetch(self):
        other = self.soak.some_user(self.dice) + "/" if self.dice.random() < 0.8 else "common/"
        names = [name for name in self.client.sch(other) if not name.startswith(self.user)]
        names = [name for name in names if name not in self.published | self.unsure]
        if names:
            chosen = self.dice.sample(names, min(len(names), self.dice.randrange(1, 4)))
            self.client.get(*chosen, wait=3 if self.dice.random() < 0.5 else None)

    def wait(self):
        kind = self.dice.choice(["peer", "gone", "file"])
        what = self.soak.some_user(self.dice, self.user)
        self.client.run("wait %s %s %.1f" % (kind, what + "/0" if kind == "file" else what, self.dice.random() * 4))

    def look(self):
        self.client.run(self.dice.choice(["lap", "lpf", "sch -l u0", "ls " + self.soak.some_user(self.dice, self.user), "jobs"]))

    def follow(self):
        pattern = "%s/*" % self.soak.some_user(self.dice, self.user)
        self.followed.add(pattern)
        self.client.run("follow " + pattern)
        time.sleep(self.dice.random() * 3)
        self.client.run("unfollow " + pattern)
        self.followed.discard(pattern)

    def watch(self):
        """Changes the watched folder."""
        if not self.watches:
            return
        name = "w/%s-%d" % (self.user, self.dice.randrange(5))
        if self.dice.random() < 0.3:
            self.client.path(name).unlink(missing_ok=True)
        else:
            self.write(name)

    def job(self):
        """Fetches in the background, and often thinks better of it."""
        name = "common/%d" % self.dice.randrange(3)
        if name not in self.published | self.unsure:
            job = self.client.begin_job("get --wait 3 -- " + name)
            if self.dice.random() < 0.5:
                job.cancel()
            elif job.wait_any().code:
                self.soak.count("job's get", False)

    def attach(self):
        """A command in the client that runs, from a process of its own, which may be killed."""
        command = [fileshare_testkit._find("client"), "--attach", "-u", self.user, "-c", "lap"]
        command += ["-c", "-wait file %s/0 2" % self.user]
        environment = self.client._program._environment({})
        side = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if self.dice.random() < 0.3:
            time.sleep(self.dice.random())
            side.kill()
        _, why = side.communicate()
        if side.returncode not in STORM_CODES | {0, 4, -signal.SIGKILL}:
            raise Broken("%s: --attach: exit %s: %s" % (self.user, side.returncode, why.decode()))

    def leave(self):
        if self.is_resident and not self.soak.is_over.is_set():
            return
        code = self.client.xit()
        # The status is that of the first command that has failed.
        if code not in STORM_CODES | {0, -signal.SIGKILL}:
            raise Broken("%s: xit: exit %s" % (self.user, code))

    def settle(self):
        """After a storm: what was left uncertain is published anew, and nothing is followed any more."""
        own = sorted(self.published | self.unsure)
        deadline = time.monotonic() + HEALED_SECONDS
        while True:
            try:
                for pattern in sorted(self.followed):
                    self.client.begin("unfollow " + pattern).wait_any()
                if own:
                    self.client.pub(*own)
                break
            except CommandFailed as error:
                if time.monotonic() > deadline:
                    raise Broken("after the storm: %s" % error)
        self.published, self.unsure, self.followed = set(own), set(), set()


class BadNetwork:
    """The process of scripts/soak_network.py."""

    def __init__(self, server_port, clients, seed):
        program = pathlib.Path(__file__).with_name("soak_network.py")
        argv = [sys.executable, str(program), str(server_port), str(clients), str(seed)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        ports = json.loads(self.process.stdout.readline())
        self.udp, self.tcp = ports["udp"], ports["tcp"]

    def set(self, **changes):
        self.process.stdin.write(json.dumps(changes).encode() + b"\n")
        self.process.stdin.flush()

    def heal(self):
        self.set(loss=0, repeat=0, delay_ms=0, stall=0, end=0, cut=[])

    def close(self):
        self.process.kill()
        self.process.wait()


class Soak:
    def __init__(self, arguments):
        self.seed, self.clients = arguments.seed, arguments.clients
        self.dice = random.Random(self.seed)
        # Between two acts of a client, seconds: two cores carry about a hundred acts a second.
        self.pause = 0.01 * self.clients + 0.2
        users = {"u%03d" % number: "secret %d" % number for number in range(self.clients)}
        self.share = Share(users=users, options=["--log-level", "warn"], timeout=60)
        self.network = BadNetwork(self.share.server.port, self.clients, self.seed)
        self.calm, self.storming, self.is_over = threading.Event(), threading.Event(), threading.Event()
        # A login takes some CPU time and has 5 s: too many at once on one machine would all fail, again and again.
        self.logins = threading.Semaphore(4)
        self.storms, self.counts, self.lock = 4, {}, threading.Lock()
        self.programs = soak_checks.Programs()
        self.actors = [Actor(self, number) for number in range(self.clients)]

    def count(self, what, ok):
        with self.lock:
            self.counts.setdefault(what, [0, 0])[not ok] += 1

    def some_user(self, dice, but=None):
        return dice.choice([actor.user for actor in self.actors if actor.user != but])

    def run(self, minutes):
        """Storms until the time is over; at least one."""
        begun = time.monotonic()
        self.storming.set()
        for actor in self.actors:
            actor.start()
        while True:
            self.storm()
            self.rest(begun)
            if time.monotonic() - begun > minutes * 60:
                break
            self.calm.clear()
            self.storming.set()
        self.end()

    def storm(self):
        # The server lives through four storms, so that what it leaks shows, and is killed again and again in the fifth.
        self.storms += 1
        kills = 1.5 if self.storms % 5 == 0 else 0
        dice, until = self.dice, time.monotonic() + STORM_SECONDS
        while time.monotonic() < until:
            self.check_actors()
            actor = dice.choice(self.actors)
            fault = dice.choices(
                [self.change_network, self.kill, self.stop, self.cut, self.move, self.stop_server, self.kill_server],
                [4, 6, 4, 3, 2, 0.5, kills],
            )[0]
            self.count(fault.__name__, True)
            fault(actor)
            time.sleep(dice.random() * 40 / (10 + self.clients))

    # --- faults

    def change_network(self, _):
        dice = self.dice
        self.network.set(
            loss=dice.choice([0, 0.05, 0.3]),
            repeat=dice.choice([0, 0.1, 0.5]),
            delay_ms=dice.choice([0, 20, 200]),
            stall=dice.choice([0, 0.02]),
            end=dice.choice([0, 0.01]),
        )

    def kill(self, actor):
        if not actor.is_resident:
            actor.client._program.send_signal(signal.SIGKILL)

    def stop(self, actor):
        """The program stands still, as if its host did."""
        program = actor.client._program
        program.send_signal(signal.SIGSTOP)
        seconds = self.dice.choice([0.3, 2, 6])
        threading.Timer(seconds, program.send_signal, [signal.SIGCONT]).start()

    def cut(self, actor):
        """Some clients are cut off from the server for a time."""
        self.network.set(cut=self.dice.sample(range(self.clients), self.dice.randrange(self.clients // 2 + 1)))
        time.sleep(self.dice.choice([0.5, 2, 5]))
        self.network.set(cut=[])

    def move(self, actor):
        self.network.set(move=[actor.number])

    def stop_server(self, _):
        self.share.server._program.send_signal(signal.SIGSTOP)
        time.sleep(self.dice.choice([0.3, 2, 5]))
        self.share.server._program.send_signal(signal.SIGCONT)

    def kill_server(self, _):
        """It is killed, or stopped in order, and starts after a time."""
        self.dice.choice([self.share.server.kill, self.share.server.stop])()
        time.sleep(self.dice.choice([0, 1, 5]))
        self.share.server.start()

    # --- checks

    def check_actors(self):
        for actor in self.actors:
            if actor.error:
                raise Broken("%s: %s" % (actor.user, actor.error)) from actor.error

    def rest(self, begun):
        """The network heals; what must hold then."""
        self.network.heal()
        # Programs that stand still go on.
        time.sleep(6)
        self.storming.clear()
        self.calm.set()
        until = time.monotonic() + 2 * HEALED_SECONDS
        for actor in self.actors:
            if not actor.is_resting.wait(max(0, until - time.monotonic())):
                raise Broken("%s does not come to rest; it runs %s" % (actor.user, list(actor.client._begun)))
        self.check_actors()
        soak_checks.check_peers(self.actors, HEALED_SECONDS)
        soak_checks.check_publications(self.actors, HEALED_SECONDS)
        fetched = soak_checks.check_fetches(self.actors, self.dice, HEALED_SECONDS)
        soak_checks.check_panics(self.share.server, self.actors)
        files = sum(soak_checks.check_folder(actor) for actor in self.actors)
        self.programs.measure("server", self.share.server._program._process.pid)
        for actor in self.actors:
            self.programs.measure(actor.user, actor.client._program._process.pid)
        self.programs.check()
        done = sum(good for good, _ in self.counts.values())
        minutes = (time.monotonic() - begun) / 60
        print("%5.1f min: %d acts and faults; %d files right, %d fetched" % (minutes, done, files, fetched), flush=True)

    def end(self):
        """Everyone leaves, and nothing stays behind."""
        self.is_over.set()
        self.storming.set()
        for actor in self.actors:
            actor.join(HEALED_SECONDS)
            if actor.client._program.is_running():
                actor.leave()
        soak_checks.check_left_behind(self.share.folder)
        self.share.server.stop()
        print("acts and faults, good and failed:")
        for what, (good, bad) in sorted(self.counts.items()):
            print("%16s %7d %6d" % (what, good, bad))
        print(self.programs.table())


def main():
    parser = argparse.ArgumentParser(usage="scripts/soak.py [--minutes N] [--clients N] [--seed N] [--no-build]")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--no-build", action="store_true")
    arguments = parser.parse_args()
    if not arguments.no_build:
        home = pathlib.Path(__file__).resolve().parent.parent
        subprocess.run(["cargo", "build", "--release", "--locked", "--bins"], cwd=home, check=True)
    print("seed %d" % arguments.seed, flush=True)
    soak = Soak(arguments)
    try:
        soak.run(arguments.minutes)
    except Broken as broken:
        kept = soak.share.folder.with_name("fileshare-soak-%d" % arguments.seed)
        soak.share.folder.rename(kept)
        print("broken, with seed %d, after %s: %s" % (arguments.seed, soak.counts, broken))
        print("the folders are in %s" % kept)
        sys.exit(1)
    finally:
        soak.is_over.set()
        soak.network.close()
        for actor in soak.actors:
            actor.client._program.kill()
        soak.share.close()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Tests of scripts/fileshare_testkit.py with real programs: `python3 tests/testkit/test_testkit.py`, programs from FS_BIN."""

import os
import pathlib
import signal
import subprocess
import sys
import unittest

KIT = pathlib.Path(__file__).resolve().parent.parent.parent / "scripts"
sys.dont_write_bytecode = True
sys.path.insert(0, str(KIT))
if "FS_BIN" in os.environ:
    os.environ["FS_BIN"] = os.path.abspath(os.environ["FS_BIN"])
from fileshare_testkit import Code, CommandFailed, CommandTimeout, Error, ProgramEnded, Share  # noqa: E402

# Short, so that nobody waits long for what a crash leaves.
QUICK = ("--heartbeat", "0.2", "--liveness", "0.8")


class TestKit(unittest.TestCase):
    def setUp(self):
        self.share = Share(options=QUICK)
        self.addCleanup(self.share.close)

    def test_results_are_typed(self):
        hans, vader = self.share.client("hans"), self.share.client("vader")
        for name in ("a b.txt", "-c", "it's *.txt"):
            hans.write("dir/" + name, "hello " + name)
        names = ["dir/-c", "dir/a b.txt", "dir/it's *.txt"]
        self.assertEqual(sorted(hans.pub("dir")), names)
        self.assertEqual([(file.name, file.bytes, file.restricted) for file in hans.lpf()][0], ("dir/-c", 8, False))
        self.assertEqual(vader.sch("DIR"), [])
        self.assertEqual(vader.sch("DIR", ignore_case=True), names)
        found = vader.search("a b")[0]
        self.assertEqual((found.name, found.bytes, found.sources), ("dir/a b.txt", 13, 1))
        downloads = vader.get(*names)
        self.assertEqual([download.name for download in downloads], names)
        for download in downloads:
            self.assertTrue(download.ok and not download.skipped)
            self.assertEqual((download.saved, download.sources, download.resumed_bytes), (download.name, ["hans"], 0))
            self.assertEqual(vader.read(download.name), ("hello " + download.name[4:]).encode())
        self.assertEqual(downloads[1].hash, found.hash)
        self.assertEqual(hans.unp(*names[:2]), names[:2])
        self.assertEqual(vader.lap(), ["hans"])
        self.assertEqual(vader.ls("hans"), sorted(names[2:]))

    def test_an_audience_of_names(self):
        hans, vader, yoda = map(self.share.client, ("hans", "vader", "yoda"))
        hans.write("plans", "secret")
        hans.pub("plans", to=["vader"])
        vader.wait_file("plans")
        self.assertEqual(yoda.sch("plans"), [])

    def test_a_failure_has_code_and_reason(self):
        hans = self.share.client("hans")
        with self.assertRaisesRegex(CommandFailed, r"^hans: get -- nothing: exit 5: nothing: ") as caught:
            hans.get("nothing")
        self.assertEqual(caught.exception.code, Code.NOT_FOUND)
        self.assertFalse(caught.exception.outcome.downloads()[0].ok)
        with self.assertRaises(CommandFailed) as caught:
            hans.wait_peer("vader", 0)
        self.assertEqual(caught.exception.code, Code.TIMED_OUT)
        with self.assertRaises(CommandFailed) as caught:
            hans.run("put x")
        self.assertEqual(caught.exception.code, Code.USAGE)
        self.assertEqual(hans.lap(), [], "the client goes on")

    def test_a_timeout_names_the_command(self):
        hans = self.share.client("hans")
        waiting = hans.begin("wait peer vader 60")
        with self.assertRaisesRegex(CommandTimeout, "hans: wait peer vader 60: not ended after 0.05 s"):
            waiting.wait(0.05)
        self.share.client("vader")
        self.assertEqual(waiting.wait().code, 0)

    def test_a_program_that_ends_ends_the_waiting(self):
        hans = self.share.client("hans")
        waiting = hans.begin("wait peer vader 60")
        hans.kill()
        with self.assertRaisesRegex(ProgramEnded, "hans: wait peer vader 60: the program ended with -9") as caught:
            waiting.wait()
        self.assertEqual((caught.exception.code, hans.exit_code), (-9, -9))
        with self.assertRaises(ProgramEnded):
            hans.lap()
        with self.assertRaises(ProgramEnded) as caught:
            Share(options=["--heartbeat", "9", "--liveness", "1"])
        self.assertEqual(caught.exception.code, 2)
        with self.assertRaises(ProgramEnded) as caught:
            self.share.users["leia"] = "not in the credentials"
            self.share.client("leia")
        self.assertEqual(caught.exception.code, Code.NOT_AUTHENTICATED)

    def test_a_killed_client_returns(self):
        hans, vader = self.share.client("hans"), self.share.client("vader")
        hans.write("a", "a")
        hans.pub("a")
        hans.kill()
        vader.wait_gone("hans")
        hans.restart()
        vader.wait_file("a")
        hans.restart()
        self.assertEqual([file.name for file in hans.lpf()], ["a"])
        self.assertEqual(hans.xit(), 0)

    def test_a_killed_server_returns_on_its_port(self):
        hans, vader = self.share.client("hans"), self.share.client("vader")
        hans.write("a", "a")
        hans.pub("a")
        port = self.share.server.port
        for stop in (self.share.server.kill, self.share.server.stop):
            stop()
            self.share.server.start()
            self.assertEqual(self.share.server.port, port)
            vader.wait_file("a")
        self.share.server.stop()
        self.assertIn("stopping", self.share.server.log)

    def test_events(self):
        hans = self.share.client("hans", events=True)
        vader = self.share.client("vader")
        joined = hans.wait_event("peer_joined", user="vader")
        vader.write("a", "a")
        vader.pub("a")
        hans.wait_file("a")
        hans.get("a")
        finished = hans.wait_event("download_finished", name="a", ok=True)
        vader.kill()
        left = hans.wait_event("peer_left", user="vader")
        self.assertTrue(joined["seq"] < finished["seq"] < left["seq"])
        with self.assertRaisesRegex(CommandTimeout, "hans: event peer_joined"):
            hans.wait_event("peer_joined", timeout=0.01)

    def test_jobs_run_beside_other_commands(self):
        hans, vader = self.share.client("hans"), self.share.client("vader")
        download, forlorn = vader.begin_job("get --wait 60 a"), vader.begin_job("wait peer yoda 60")
        self.assertEqual((download.number, forlorn.number), (1, 2))
        running = [(job.number, job.kind, job.line) for job in vader.jobs()]
        self.assertEqual(running, [(1, "job", "get --wait 60 a"), (2, "job", "wait peer yoda 60")])
        self.assertEqual(vader.lap(), ["hans"], "meanwhile")
        hans.write("a", "a")
        hans.pub("a")
        self.assertEqual([file.sources for file in download.wait().downloads()], [["hans"]])
        self.assertEqual(download.wait().code, 0, "again")
        with self.assertRaisesRegex(CommandTimeout, "vader: wait peer yoda 60 &: not ended after 0.01 s"):
            forlorn.wait(0.01)
        forlorn.cancel()
        with self.assertRaises(CommandFailed) as caught:
            forlorn.wait()
        self.assertEqual(caught.exception.code, Code.INTERRUPTED)
        self.assertEqual(vader.jobs(), [])
        download.cancel()  # It has ended already.

    def test_a_job_that_fails_or_cannot_begin_says_why(self):
        hans = self.share.client("hans")
        with self.assertRaisesRegex(CommandFailed, "^hans: get nothing &: exit 5: nothing: "):
            hans.begin_job("get nothing").wait()
        with self.assertRaises(CommandFailed) as caught:
            hans.begin_job("lap")
        self.assertEqual(caught.exception.code, Code.USAGE)
        with self.assertRaisesRegex(Error, "only get, pub and wait run in the background"):
            hans.begin_job("sch")
        cut_off = hans.begin_job("wait peer vader 60")
        hans.kill()
        with self.assertRaises(ProgramEnded):
            cut_off.wait()

    def test_many_commands_wait_for_nobody(self):
        hans = self.share.client("hans")
        waiting = hans.begin("wait peer vader 60")
        # More than a pipe holds, while the client reads nothing.
        many = [hans.begin("help pub " + " " * 200) for _ in range(2_000)]
        self.share.client("vader")
        self.assertEqual(waiting.wait().code, 0)
        self.assertEqual({command.wait().code for command in many}, {0})


class TestTheEnd(unittest.TestCase):
    def test_nothing_is_left(self):
        with Share() as share:
            pids = [share.client(user)._program._process.pid for user in ("hans", "vader")]
            pids.append(share.server._program._process.pid)
            share.client("yoda").begin("wait peer leia 60")
        self.assertFalse(share.folder.exists())
        for pid in pids:
            with self.assertRaises(ProcessLookupError):
                os.kill(pid, 0)

    def test_nothing_is_left_by_a_test_that_forgets(self):
        script = (
            "import fileshare_testkit, sys\n"
            "share = fileshare_testkit.Share()\n"
            "hans = share.client('hans')\n"
            "hans.begin('wait peer vader 60')\n"
            "print(share.folder, hans._program._process.pid, share.server._program._process.pid, flush=True)\n"
            "raise SystemExit(3)\n"
        )
        done = subprocess.run([sys.executable, "-Bc", script], cwd=KIT, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 3, done.stderr)
        folder, *pids = done.stdout.split()
        self.assertFalse(os.path.exists(folder))
        for pid in pids:
            with self.assertRaises(ProcessLookupError):
                os.kill(int(pid), signal.SIG_DFL)


if __name__ == "__main__":
    unittest.main()

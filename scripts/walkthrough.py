#!/usr/bin/env python3
"""A whole session of three users, in the test kit. walkthrough.sh is the same in bash."""
import os

from fileshare_testkit import Code, CommandFailed, Share


def fails(code, command, *arguments):
    try:
        command(*arguments)
    except CommandFailed as error:
        assert error.code == code, error
    else:
        raise AssertionError("%r did not fail" % (arguments,))

with Share() as share:
    assignment, movie = os.urandom(300_000), os.urandom(2_000_000)
    hans = share.client("hans")
    hans.write("Assignment.pdf", assignment)
    assert hans.lap() == []
    assert hans.pub("Assignment.pdf") == ["Assignment.pdf"]
    assert [file.name for file in hans.lpf()] == ["Assignment.pdf"]
    assert hans.unp("Assignment.pdf") == ["Assignment.pdf"]
    fails(Code.NOT_FOUND, hans.unp, "Assignment.pdf")
    hans.pub("Assignment.pdf")

    vader = share.client("vader", login=False)
    fails(Code.NOT_AUTHENTICATED, vader.auth, "hans", "falcon*solo")
    vader.auth("vader", "sithlord**")
    assert vader.lap() == ["hans"]
    vader.write("movie.mp4", movie)
    vader.write("rfc768.txt", "User Datagram Protocol")
    vader.pub("movie.mp4", "rfc768.txt")
    assert vader.sch("pdf") == ["Assignment.pdf"]
    fails(Code.NOT_FOUND, vader.get, "assignment.pdf")

    yoda = share.client("yoda")
    assert yoda.sch("i") == ["Assignment.pdf", "movie.mp4"]
    everyone = [client.begin_job("get *") for client in (yoda, hans, vader)]
    assert hans.lap() == ["vader", "yoda"]  # its shell stays usable meanwhile
    assert [len(get.wait().downloads()) for get in everyone] == [3, 2, 1]
    for client in (yoda, hans, vader):
        assert client.read("Assignment.pdf") == assignment and client.read("movie.mp4") == movie
    vader.pub("Assignment.pdf")
    assert vader.sch("pdf") == []

    hans.kill()
    yoda.wait_gone("hans")
    assert yoda.lap() == ["vader"]
    yoda.path("Assignment.pdf").unlink()
    (download,) = yoda.get("Assignment.pdf")
    assert download.sources == ["vader"] and yoda.read("Assignment.pdf") == assignment

    vader.xit()
    fails(Code.NOT_FOUND, yoda.get, "rfc768.txt")
    vader.restart()
    vader.auth("vader", "sithlord**")
    assert [file.name for file in vader.lpf()] == ["Assignment.pdf", "movie.mp4", "rfc768.txt"]
    assert yoda.get("rfc768.txt")[0].ok

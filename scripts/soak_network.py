#!/usr/bin/env python3
"""A bad network between the clients of scripts/soak.py, their server and each other, on loopback.

    scripts/soak_network.py SERVER_PORT CLIENTS SEED

Client I reaches the server at a UDP port of 127.0.0.1. The server sees it at an address of its own, 127.X.Y.1, and so other
clients connect to it there: TCP connections are passed on to the same port of 127.0.0.1, where it listens. The first line of
output is an object with the ports: {"udp": [...], "tcp": [...]}. Each line of input is an object that changes what is named:

    loss, repeat     share of datagrams, 0 to 1
    delay_ms         most time that a datagram is held back, which also reorders them
    stall, end       share of pieces of a TCP connection before which it stands still for up to 0.5 s, or ends
    cut              numbers of the clients whose datagrams are all lost
    move             numbers of the clients that get another UDP port at the server's side, once
"""

import asyncio
import json
import random
import socket
import sys

PIECE_BYTES = 64 << 10


class Quality:
    """How bad the network is."""

    loss = repeat = stall = end = 0.0
    delay_ms = 0
    cut = frozenset()


def address(client):
    """In a network of its own, as the server limits what it accepts from one."""
    return "127.%d.%d.1" % (1 + client // 250, 1 + client % 250)


class Datagrams(asyncio.DatagramProtocol):
    """One end of a client's way to the server."""

    def __init__(self, network, client, forward):
        self.network, self.client, self.forward, self.transport = network, client, forward, None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, datagram, sender):
        quality, chance = self.network.quality, self.network.chance
        if self.client in quality.cut or chance.random() < quality.loss:
            return
        for _ in range(2 if chance.random() < quality.repeat else 1):
            delay = chance.random() * quality.delay_ms / 1000
            if delay:
                asyncio.get_running_loop().call_later(delay, self.forward, datagram, sender)
            else:
                self.forward(datagram, sender)

    def error_received(self, error):
        pass  # Nobody listens there for now.


class Way:
    """The way of one client to the server and back."""

    def __init__(self, network, client):
        self.network, self.client = network, client
        self.near, self.far, self.sender = None, None, None

    async def open(self):
        loop = asyncio.get_running_loop()
        near = lambda: Datagrams(self.network, self.client, self.to_server)
        self.near, _ = await loop.create_datagram_endpoint(near, local_addr=("127.0.0.1", 0))
        await self.move()
        return self.near.get_extra_info("sockname")[1]

    async def move(self):
        """Another port at the server's side."""
        far = lambda: Datagrams(self.network, self.client, self.to_client)
        old = self.far
        server = ("127.0.0.1", self.network.server_port)
        loop = asyncio.get_running_loop()
        self.far, _ = await loop.create_datagram_endpoint(far, local_addr=(address(self.client), 0), remote_addr=server)
        if old:
            old.close()

    def to_server(self, datagram, sender):
        self.sender = sender
        if not self.far.is_closing():
            self.far.sendto(datagram)

    def to_client(self, datagram, _):
        if self.sender:
            self.near.sendto(datagram, self.sender)


class Network:
    def __init__(self, server_port, seed):
        self.server_port, self.chance, self.quality = server_port, random.Random(seed), Quality()

    async def connected(self, port, reader, writer):
        """Passes a connection on to the client that listens at this port."""
        try:
            there = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self.pass_on(reader, there[1]), self.pass_on(there[0], writer))

    async def pass_on(self, reader, writer):
        try:
            while piece := await reader.read(PIECE_BYTES):
                if self.chance.random() < self.quality.end:
                    writer.transport.abort()
                    return
                if self.chance.random() < self.quality.stall:
                    await asyncio.sleep(self.chance.random() / 2)
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass  # One of the ends has gone.
        writer.close()

    async def listen(self, client, port):
        """Listens at the client's address, at a port from this one on that is free there and at 127.0.0.1."""
        while True:
            port += 1
            try:
                socket.create_server(("127.0.0.1", port)).close()
                accept = lambda reader, writer, port=port: self.connected(port, reader, writer)
                await asyncio.start_server(accept, address(client), port)
                return port
            except OSError:
                pass

    async def run(self, clients):
        ways = [Way(self, client) for client in range(clients)]
        udp = [await way.open() for way in ways]
        tcp, port = [], self.chance.randrange(10_000, 25_000)
        for client in range(clients):
            port = await self.listen(client, port)
            tcp.append(port)
        print(json.dumps({"udp": udp, "tcp": tcp}), flush=True)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            changes = json.loads(line)
            for client in changes.pop("move", ()):
                await ways[client].move()
            for name, value in changes.items():
                setattr(self.quality, name, frozenset(value) if name == "cut" else value)


if __name__ == "__main__":
    server_port, clients, seed = map(int, sys.argv[1:])
    asyncio.run(Network(server_port, seed).run(clients))

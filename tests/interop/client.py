"""One device of somebody, as slixmpp makes it."""

import asyncio
import ssl

import slixmpp

from server import DOMAIN

TIMEOUT = 15


class Client(slixmpp.ClientXMPP):
    """One device. Everything that arrives goes into queues, which the tests wait for."""

    def __init__(self, server, name, password, resource="laptop", how="starttls", register=False, sm=False):
        super().__init__(f"{name}@{DOMAIN}/{resource}", password)
        self.target, self.how = server, how
        self.ssl_context = ssl.create_default_context(cafile=str(server.certificate()))
        self.enable_direct_tls = how == "tls"
        self.enable_starttls = how != "tls"
        self.auto_authorize = None
        self.auto_subscribe = False
        self.messages, self.requests, self.ended = asyncio.Queue(), asyncio.Queue(), asyncio.Queue()
        self.presences = asyncio.Queue()
        self.ready = asyncio.get_event_loop().create_future()
        for plugin in ("xep_0030", "xep_0199", "xep_0092", "xep_0054", "xep_0049", "xep_0202", "xep_0012", "xep_0203"):
            self.register_plugin(plugin)
        if sm:
            self.register_plugin("xep_0198")
        if register:
            self.register_plugin("xep_0004")
            self.register_plugin("xep_0066")
            self.register_plugin("xep_0077")
            self["xep_0077"].force_registration = True
            self.add_event_handler("register", self.on_register)
        self.add_event_handler("session_start", self.on_start)
        self.add_event_handler("message", self.on_message)
        self.add_event_handler("presence_subscribe", lambda presence: self.requests.put_nowait(presence))
        self.add_event_handler("presence_available", lambda presence: self.presences.put_nowait(presence))
        self.add_event_handler("presence_unavailable", lambda presence: self.presences.put_nowait(presence))
        self.add_event_handler("failed_all_auth", lambda _: self.done(False))
        self.add_event_handler("disconnected", lambda _: self.ended.put_nowait(True))
        self.add_event_handler("disconnected", lambda _: self.done(False))

    def on_message(self, message):
        # What is said in rooms has a queue of its own (rooms.py).
        if message["type"] != "groupchat":
            self.messages.put_nowait(message)

    def done(self, value):
        if not self.ready.done():
            self.ready.set_result(value)

    async def on_register(self, _):
        request = self.Iq()
        request["type"] = "set"
        request["register"]["username"] = self.boundjid.user
        request["register"]["password"] = self.password
        await request.send(timeout=TIMEOUT)

    async def on_start(self, _):
        self.done(True)

    async def login(self, presence=True):
        port = {"starttls": self.target.starttls, "tls": self.target.tls}[self.how]
        self.connect("127.0.0.1", port)
        entered = await asyncio.wait_for(asyncio.shield(self.ready), TIMEOUT)
        if entered and presence:
            await self.get_roster(timeout=TIMEOUT)
            self.send_presence()
        return entered

    async def leave(self):
        await asyncio.wait_for(self.disconnect(), TIMEOUT)

    async def message(self, body=None):
        """The next message, which must have this body."""
        message = await asyncio.wait_for(self.messages.get(), TIMEOUT)
        if body is not None and message["body"] != body:
            raise SystemExit(f"FAILED: expected {body!r}, got {message}")
        return message

    async def presence_of(self, jid, kind):
        while True:
            presence = await asyncio.wait_for(self.presences.get(), TIMEOUT)
            if presence["from"].bare == jid and presence["type"] == kind:
                return presence

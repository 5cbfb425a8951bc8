"""slixmpp in a room: made, configured, entered, talked in, moderated, destroyed; over a cut socket and a restart."""

import asyncio

from slixmpp import JID
from slixmpp.exceptions import IqError, PresenceError
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath

from client import TIMEOUT, Client
from server import DOMAIN

ROOM = JID(f"hall@conference.{DOMAIN}")
PLUGINS = ("xep_0004", "xep_0045", "xep_0059", "xep_0313", "xep_0410", "xep_0421", "xep_0359")


class Visitor:
    """A client with what the room sends it."""

    def __init__(self, client, nick):
        for plugin in PLUGINS:
            client.register_plugin(plugin)
        self.client, self.nick, self.muc = client, nick, client["xep_0045"]
        self.said, self.left, self.invited = asyncio.Queue(), asyncio.Queue(), asyncio.Queue()
        client.add_event_handler("groupchat_message", lambda message: self.said.put_nowait(message))
        # The event tells nothing of invitations into a room that the client has tried to enter.
        invitation = Callback("invitation", StanzaPath("message/muc/invite"), self.invited.put_nowait)
        client.register_handler(invitation)
        client.add_event_handler(f"muc::{ROOM}::got_offline", lambda presence: self.left.put_nowait(presence))
        client.add_event_handler(f"muc::{ROOM}::self-presence", self.on_self)

    def on_self(self, presence):
        if presence["type"] == "unavailable":
            self.left.put_nowait(presence)

    async def enter(self, **wanted):
        return await self.muc.join_muc_wait(ROOM, self.nick, timeout=TIMEOUT, **wanted)

    def say(self, text):
        self.client.send_message(mto=ROOM, mbody=text, mtype="groupchat")

    async def hears(self, text):
        message = await asyncio.wait_for(self.said.get(), TIMEOUT)
        if message["body"] != text:
            raise SystemExit(f"FAILED: expected {text!r}, got {message}")
        return message

    async def is_out(self, code):
        while True:
            presence = await asyncio.wait_for(self.left.get(), TIMEOUT)
            if code in presence["muc"]["status_codes"]:
                return presence

    async def self_ping(self):
        jid = JID(f"{ROOM}/{self.nick}")
        return await self.client["xep_0199"].send_ping(jid, timeout=TIMEOUT)


def condition(error):
    return error.iq["error"]["condition"] if isinstance(error, IqError) else error.presence["error"]["condition"]


async def refused(check, name, expected, action):
    try:
        await action
    except (IqError, PresenceError) as error:
        return check(name, condition(error) == expected)
    check(name, False)


async def make(check, juliet, romeo):
    presence, *_ = await juliet.enter()
    check("who enters first makes a room", 201 in presence["muc"]["status_codes"])
    await refused(check, "which nobody else can enter before it is configured", "item-not-found", romeo.enter())
    form = await juliet.muc.get_room_config(ROOM, timeout=TIMEOUT)
    form["type"] = "submit"
    form.set_values({"muc#roomconfig_roomname": "The hall", "muc#roomconfig_membersonly": True})
    await juliet.muc.set_room_config(ROOM, form, timeout=TIMEOUT)
    check("a room is configured")
    await refused(check, "members only", "registration-required", romeo.enter())
    juliet.muc.invite(ROOM, f"romeo@{DOMAIN}", reason="Come")
    await asyncio.wait_for(romeo.invited.get(), TIMEOUT)
    await romeo.enter()
    check("who is invited enters", juliet.nick in romeo.muc.get_roster(ROOM))


async def talk(check, juliet, romeo):
    for number in range(3):
        romeo.say(f"line {number}")
    for visitor in (juliet, romeo):
        for number in range(3):
            message = await visitor.hears(f"line {number}")
            if not (message["stanza_id"]["id"] and message["occupant-id"]["id"]):
                raise SystemExit(f"FAILED: no ids in {message}")
    check("both hear the same lines in the same order, with ids")
    juliet.client.send_message(mto=JID(f"{ROOM}/{romeo.nick}"), mbody="for you", mtype="chat")
    message = await romeo.client.message("for you")
    check("a private message", message["from"] == f"{ROOM}/{juliet.nick}")
    juliet.muc.set_subject(ROOM, "Love")
    await romeo.self_ping()
    check("the ping to oneself is answered")
    await romeo.muc.set_self_nick(ROOM, "Montague", timeout=TIMEOUT)
    romeo.nick = "Montague"
    check("a nick is changed", juliet.muc.get_nick(ROOM, JID(romeo.client.boundjid.full)) in ("Montague", None))


async def archive(check, juliet):
    bodies, page = [], None
    while True:
        rsm = {"max": 2, **({"after": page} if page else {})}
        answer = await juliet.client["xep_0313"].retrieve(jid=ROOM, rsm=rsm, timeout=TIMEOUT)
        bodies += [result["mam_result"]["forwarded"]["stanza"]["body"] for result in answer["mam"]["results"]]
        if answer["mam_fin"]["complete"]:
            break
        page = answer["mam_fin"]["rsm"]["last"]
    check("the archive by pages", [body for body in bodies if body] == [f"line {number}" for number in range(3)])


async def moderate(check, juliet, romeo):
    await juliet.muc.set_role(ROOM, "Montague", "none", reason="Out", timeout=TIMEOUT)
    await romeo.is_out(307)
    check("kicked")
    _, subject, _, history = await romeo.enter(maxstanzas=2)
    check("and back, with history and subject", len(history) == 2 and subject["subject"] == "Love")
    await juliet.muc.set_affiliation(ROOM, "outcast", jid=f"romeo@{DOMAIN}", timeout=TIMEOUT)
    await romeo.is_out(301)
    await refused(check, "who is banned does not come back", "forbidden", romeo.enter())
    await juliet.muc.set_affiliation(ROOM, "member", jid=f"romeo@{DOMAIN}", timeout=TIMEOUT)
    members = await juliet.muc.get_affiliation_list(ROOM, "member", timeout=TIMEOUT)
    check("until it is a member again", [str(jid) for jid in members] == [f"romeo@{DOMAIN}"])


async def cut(check, juliet, server):
    """Sockets that are lost without a word, with the server up all the while."""

    async def device(resource, nick, **how):
        visitor = Visitor(Client(server, "romeo", "wherefore art thou", resource=resource, **how), nick)
        await visitor.client.login()
        return visitor

    lost = await device("cut", "Cut")
    await lost.enter(maxstanzas=0)
    lost.client.abort()
    while (await asyncio.wait_for(juliet.left.get(), TIMEOUT))["from"] != f"{ROOM}/Cut":
        pass
    check("whose socket is cut leaves the room")
    lost = await device("cut", "Cut")
    await refused(check, "and learns it from the ping to itself", "not-acceptable", lost.self_ping())
    await lost.enter(maxstanzas=0)
    await lost.self_ping()
    check("before it enters again")
    await lost.client.leave()

    phone = await device("phone", "Phone", sm=True)
    await phone.enter(maxstanzas=0)
    resumed = asyncio.get_event_loop().create_future()
    phone.client.add_event_handler("session_resumed", lambda _: resumed.done() or resumed.set_result(True))
    while not juliet.left.empty():
        juliet.left.get_nowait()
    phone.client.abort()
    juliet.say("while you were away")
    await juliet.hears("while you were away")
    phone.client.connect("127.0.0.1", server.starttls)
    await asyncio.wait_for(resumed, TIMEOUT)
    await phone.hears("while you were away")
    await phone.self_ping()
    check("a session that is resumed has been in the room all the time", juliet.left.empty())
    await phone.client.leave()


async def rooms(check, juliet, romeo, server):
    juliet, romeo = Visitor(juliet, "Juliet"), Visitor(romeo, "Romeo")
    await make(check, juliet, romeo)
    await talk(check, juliet, romeo)
    await archive(check, juliet)
    await moderate(check, juliet, romeo)
    await cut(check, juliet, server)
    await romeo.enter()


async def rooms_after(check, what, juliet, romeo, server):
    """The clients have logged in anew; they were in the room before."""
    juliet, romeo = Visitor(juliet, "Juliet"), Visitor(romeo, "Romeo")
    await refused(check, f"after a {what} the ping to oneself tells who is out", "not-acceptable", romeo.self_ping())
    _, subject, occupants, _ = await romeo.enter(maxstanzas=0)
    check(f"the room survives a {what}, without those who were in it", subject["subject"] == "Love" and len(occupants) <= 1)
    await juliet.enter()
    check("the command line lists rooms", f"{ROOM} The hall (hidden)" in server.cli("room", "list").splitlines())
    server.cli("room", "affiliate", str(ROOM), f"romeo@{DOMAIN}", "admin")
    lines = server.cli("room", "show", str(ROOM)).splitlines()
    expected = (f"owner juliet@{DOMAIN}", f"admin romeo@{DOMAIN}", "occupants 2", "subject Love")
    check("and shows and changes who is what", all(line in lines for line in expected))
    await juliet.muc.destroy(ROOM, reason="Done", timeout=TIMEOUT)
    presence = await asyncio.wait_for(romeo.left.get(), TIMEOUT)
    check("destroyed", presence.xml.find(".//{*}destroy") is not None)
    await refused(check, "and gone", "gone", romeo.enter())

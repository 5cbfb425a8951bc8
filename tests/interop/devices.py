"""slixmpp with several devices of one person, and what phones need of their server."""

import asyncio
import xml.etree.ElementTree as ET

from slixmpp.exceptions import IqError
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from client import TIMEOUT, Client
from server import DOMAIN

ADMIN = f"benvolio@{DOMAIN}"
PASSWORD = "sweet sorrow"
PUBSUB = "http://jabber.org/protocol/pubsub"
METADATA = "urn:xmpp:avatar:metadata"
DEVICES = "eu.siacs.conversations.axolotl.devicelist"
BUNDLE = "eu.siacs.conversations.axolotl.bundles:31415"
BOOKMARKS = "urn:xmpp:bookmarks:1"
DISPLAYED = "urn:xmpp:mds:displayed:0"
PLUGINS = (
    "xep_0004",
    "xep_0050",
    "xep_0059",
    "xep_0060",
    "xep_0084",
    "xep_0115",
    "xep_0163",
    "xep_0191",
    "xep_0280",
    "xep_0313",
    "xep_0352",
    "xep_0359",
    "xep_0441",
)


class Device(Client):
    """A client that hears of copies and events too, each kind in its queue."""

    def __init__(self, server, name, resource, interests=()):
        super().__init__(server, name, PASSWORD, resource)
        for plugin in PLUGINS:
            self.register_plugin(plugin)
        self.copies, self.events, self.wakes = asyncio.Queue(), asyncio.Queue(), asyncio.Queue()
        self.refused = asyncio.Queue()
        self.interests = interests
        self.add_event_handler("carbon_received", lambda copy: self.copies.put_nowait(copy["carbon_received"]))
        self.add_event_handler("carbon_sent", lambda copy: self.copies.put_nowait(copy["carbon_sent"]))
        self.add_event_handler("message_error", self.refused.put_nowait)
        event = MatchXPath(f"{{jabber:client}}message/{{{PUBSUB}#event}}event")
        self.register_handler(Callback("event", event, self.events.put_nowait))
        push = MatchXPath(f"{{jabber:client}}iq/{{{PUBSUB}}}pubsub/{{{PUBSUB}}}publish")
        self.register_handler(Callback("push", push, self.on_push))

    def on_push(self, iq):
        if iq["type"] == "set":
            self.wakes.put_nowait(iq)
            iq.reply(clear=True).send()

    async def enter(self):
        if not await self.login(presence=False):
            raise SystemExit(f"FAILED: {self.boundjid} cannot log in")
        for interest in self.interests:
            self["xep_0163"].add_interest(interest)
        await self["xep_0115"].update_caps(broadcast=False)
        await self.get_roster(timeout=TIMEOUT)
        self.send_presence()
        return self

    async def settle(self):
        """What the server had for this device before has arrived when the answer has."""
        await self["xep_0199"].send_ping(DOMAIN, timeout=TIMEOUT)

    async def ask(self, kind, payload, to=None):
        iq = self.make_iq(itype=kind, ito=to)
        iq.append(ET.fromstring(payload))
        return await iq.send(timeout=TIMEOUT)

    async def publish(self, node, item, payload, **options):
        fields = "".join(f"<field var='pubsub#{name}'><value>{value}</value></field>" for name, value in options.items())
        return await self.ask(
            "set",
            f"<pubsub xmlns='{PUBSUB}'><publish node='{node}'><item id='{item}'>{payload}</item></publish><publish-options>"
            f"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>{PUBSUB}#publish-options"
            f"</value></field>{fields}</x></publish-options></pubsub>",
        )

    async def items(self, node, of=None):
        answer = await self.ask("get", f"<pubsub xmlns='{PUBSUB}'><items node='{node}'/></pubsub>", of)
        return answer.xml.findall(f".//{{{PUBSUB}}}item")

    def says(self, to, text):
        self.send_message(mto=to, mbody=text, mtype="chat")


async def next_of(queue, what):
    try:
        return await asyncio.wait_for(queue.get(), TIMEOUT)
    except asyncio.TimeoutError:
        raise SystemExit(f"FAILED: waited for {what}") from None


async def event_of(device, node):
    """The next thing told of this node, inside its `<items/>`."""
    while True:
        items = (await next_of(device.events, node)).xml.find(f".//{{{PUBSUB}#event}}items")
        if items is not None and items.get("node") == node:
            return items


async def condition(action):
    try:
        await action
    except IqError as error:
        return error.iq["error"]["condition"]
    return None


async def befriend(one, other):
    for asks, grants in ((one, other), (other, one)):
        asks.send_presence_subscription(grants.boundjid.bare, ptype="subscribe")
        await next_of(grants.requests, "a request")
        grants.send_presence_subscription(asks.boundjid.bare, ptype="subscribed")
    await one.presence_of(other.boundjid.bare, "available")
    await other.presence_of(one.boundjid.bare, "available")


async def carbons(check, laptop, phone, friend):
    for device in (laptop, phone):
        await device["xep_0280"].enable(timeout=TIMEOUT)
    friend.says(laptop.boundjid.full, "to the laptop")
    await laptop.message("to the laptop")
    copy = await next_of(phone.copies, "a copy of what came")
    check("a copy of what came to the other device", copy["body"] == "to the laptop")
    laptop.says(friend.boundjid.bare, "from the laptop")
    await friend.message("from the laptop")
    copy = await next_of(phone.copies, "a copy of what was sent")
    check("a copy of what the other device sent", copy["body"] == "from the laptop")
    friend.says(phone.boundjid.bare, "to both")
    for device in (laptop, phone):
        await device.message("to both")
        await device.settle()
        check(f"the {device.boundjid.resource} got each once", device.copies.empty() and device.messages.empty())


def bodies(results):
    return [result["mam_result"]["forwarded"]["stanza"]["body"] for result in results]


def ids(results):
    return [result["mam_result"]["id"] for result in results]


async def pages(device, reverse=False, **query):
    """All pages of three, one after the other, forwards or backwards."""
    found, archive = [], device["xep_0313"]
    async for page in archive.retrieve(iterator=True, reverse=reverse, rsm={"max": 3}, **query):
        results = page["mam"]["results"]
        if len(results) > 3:
            raise SystemExit(f"FAILED: a page of {len(results)}")
        found = results + found if reverse else found + results
    return found


async def archive(check, laptop, phone, friend, stranger):
    said = ["to the laptop", "from the laptop", "to both"]
    for number in range(7):
        speaker, hearer = ((friend, laptop), (laptop, friend))[number % 2]
        speaker.says(hearer.boundjid.full, f"said {number}")
        said.append((await hearer.message(f"said {number}"))["body"])
    stranger.says(laptop.boundjid.full, "who is this?")
    live = await laptop.message("who is this?")
    forwards = await pages(phone)
    check("the archive forwards by pages, each once and in order", bodies(forwards) == [*said, "who is this?"])
    backwards = await pages(phone, reverse=True)
    check("and backwards", ids(backwards) == ids(forwards))
    check("with the id of the live message", ids(forwards)[-1] == live["stanza_id"]["id"])
    check("by whom", bodies(await pages(phone, with_jid=ADMIN)) == said)
    check("of nobody", await pages(phone, with_jid=f"nobody@{DOMAIN}") == [])
    page, handler = asyncio.Queue(), "page"
    result = MatchXPath("{jabber:client}message/{urn:xmpp:mam:2}result")
    phone.register_handler(Callback(handler, result, page.put_nowait))
    query = "<query xmlns='urn:xmpp:mam:2'>{}<set xmlns='http://jabber.org/protocol/rsm'><max>3</max><before/></set></query>"
    await phone.ask("set", query.format("<flip-page/>"))
    flipped = [page.get_nowait()["mam_result"]["id"] for _ in range(3)]
    phone.remove_handler(handler)
    check("a page turned round", flipped == ids(forwards)[-3:][::-1] and page.empty())
    missing = "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><after>gone</after></set></query>"
    check("after an id that is not there", await condition(phone.ask("set", missing)) == "item-not-found")
    check("another's archive", await condition(stranger["xep_0313"].retrieve(jid=phone.boundjid.bare)) == "forbidden")


async def preferences(check, laptop, phone, friend):
    prefs = phone["xep_0441"]
    default, always, never = await prefs.get_preferences(timeout=TIMEOUT)
    check("everything is archived", (str(default), set(always), set(never)) == ("always", set(), set()))
    await prefs.set_preferences("always", [], [friend.boundjid.bare], timeout=TIMEOUT)
    friend.says(laptop.boundjid.full, "between us")
    check("but not what the preferences leave out", not (await laptop.message("between us"))["stanza_id"]["id"])
    await prefs.set_preferences("always", [], [], timeout=TIMEOUT)


async def avatar(check, laptop, friend):
    picture = bytes(range(256)) * 8
    avatars = laptop["xep_0084"]
    name = avatars.generate_id(picture)
    for publish, what in ((avatars.publish_avatar, picture), (avatars.publish_avatar_metadata, None)):
        options = laptop["xep_0004"].make_form(ftype="submit")
        options.add_field(var="FORM_TYPE", ftype="hidden", value=f"{PUBSUB}#publish-options")
        options.add_field(var="pubsub#access_model", value="open")
        await publish(
            what or {"id": name, "type": "image/png", "bytes": len(picture)}, options=options, timeout=TIMEOUT
        )
    event = await event_of(friend, METADATA)
    item = event.find(f".//{{{PUBSUB}#event}}item")
    check("a contact hears of a new avatar", item is not None and item.get("id") == name)
    answer = await friend["xep_0084"].retrieve_avatar(laptop.boundjid.bare, name, timeout=TIMEOUT)
    check("and fetches it", answer["pubsub"]["items"]["item"]["avatar_data"]["value"] == picture)
    card = await friend["xep_0054"].get_vcard(laptop.boundjid.bare, timeout=TIMEOUT)
    check("it is in the vCard", card["vcard_temp"]["PHOTO"]["BINVAL"] == picture)
    laptop.send_presence(pstatus="painted")
    while True:
        presence = await friend.presence_of(laptop.boundjid.bare, "available")
        photo = presence.xml.find(".//{vcard-temp:x:update}photo")
        if photo is not None and photo.text:
            break
    check("and in presence", photo.text == name)


async def bookmarks(check, laptop, phone):
    room = f"ball@conference.{DOMAIN}"
    mark = f"<conference xmlns='{BOOKMARKS}' name='{{}}' autojoin='true'><nick>R</nick></conference>"
    options = {"persist_items": "true", "max_items": "max", "send_last_published_item": "never", "access_model": "whitelist"}
    await laptop.publish(BOOKMARKS, room, mark.format("The ball"), **options)
    event = await event_of(phone, BOOKMARKS)
    check("a bookmark reaches the other device", event.find(f".//{{{BOOKMARKS}}}conference").get("name") == "The ball")
    old = "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'>{}</storage></query>"
    answer = await phone.ask("get", old.format(""))
    kept = answer.xml.find(".//{storage:bookmarks}conference")
    check("an old client reads it", (kept.get("jid"), kept.get("name")) == (room, "The ball"))
    await phone.ask("set", old.format(f"<conference jid='{room}' name='The feast' autojoin='1'><nick>R</nick></conference>"))
    event = await event_of(phone, BOOKMARKS)
    check("and changes it", event.find(f".//{{{BOOKMARKS}}}conference").get("name") == "The feast")
    await laptop.ask(
        "set", f"<pubsub xmlns='{PUBSUB}'><retract node='{BOOKMARKS}' notify='true'><item id='{room}'/></retract></pubsub>"
    )
    event = await event_of(phone, BOOKMARKS)
    check("taken back", event.find(f".//{{{PUBSUB}#event}}retract").get("id") == room)


async def omemo(check, laptop, phone, stranger):
    space = "eu.siacs.conversations.axolotl"
    await laptop.publish(
        DEVICES, "current", f"<list xmlns='{space}'><device id='31415'/></list>", access_model="open", persist_items="true"
    )
    event = await event_of(phone, DEVICES)
    check("a list of devices reaches the other device", event.find(f".//{{{space}}}device").get("id") == "31415")
    bundle = f"<bundle xmlns='{space}'><identityKey>{'A' * 44}</identityKey></bundle>"
    await laptop.publish(BUNDLE, "current", bundle, access_model="open")
    found = [await stranger.items(node, laptop.boundjid.bare) for node in (DEVICES, BUNDLE)]
    check("a stranger fetches devices and keys", [len(items) for items in found] == [1, 1])
    closed = laptop.publish(DEVICES, "current", f"<list xmlns='{space}'/>", access_model="presence")
    check("options that do not fit are refused", await condition(closed) == "conflict")


async def blocking(check, laptop, phone, friend):
    who = friend.boundjid.bare
    # Who has asked for the list is told of its changes.
    await phone["xep_0191"].get_blocked(timeout=TIMEOUT)
    told = asyncio.Queue()
    phone.add_event_handler("blocked", told.put_nowait)
    await laptop["xep_0191"].block(who, timeout=TIMEOUT)
    await next_of(told, "the blocklist's change")
    check("the other device hears of a block")
    await friend.presence_of(laptop.boundjid.bare, "unavailable")
    friend.says(laptop.boundjid.bare, "can you hear me?")
    error = await next_of(friend.refused, "an error")
    check("who is blocked is refused", error["error"]["condition"] == "service-unavailable")
    laptop.says(who, "no")
    error = await next_of(laptop.refused, "an error")
    check("and is not written to either", error["error"]["condition"] == "not-acceptable")
    for device in (laptop, phone):
        await device.settle()
    check("nothing came", laptop.messages.empty() and phone.messages.empty() and phone.copies.empty())
    await laptop["xep_0191"].unblock(who, timeout=TIMEOUT)
    await friend.presence_of(laptop.boundjid.bare, "available")
    friend.says(laptop.boundjid.full, "and now?")
    await laptop.message("and now?")
    check("until unblocked", (await next_of(phone.copies, "a copy"))["body"] == "and now?")


async def displayed(check, laptop, phone, friend):
    friend.says(laptop.boundjid.full, "read me")
    name = (await laptop.message("read me"))["stanza_id"]["id"]
    await next_of(phone.copies, "a copy")
    mark = f"<displayed xmlns='{DISPLAYED}'><stanza-id xmlns='urn:xmpp:sid:0' by='{laptop.boundjid.bare}' id='{name}'/></displayed>"
    await laptop.publish(DISPLAYED, friend.boundjid.bare, mark, max_items="max", send_last_published_item="never",
                         access_model="whitelist", persist_items="true")
    event = await event_of(phone, DISPLAYED)
    item = event.find(f".//{{{PUBSUB}#event}}item")
    check("what was read here is read there", item is not None and item.get("id") == friend.boundjid.bare)
    message = laptop.make_message(mto=friend.boundjid.bare, mtype="chat", mbody="seen")
    message.append(ET.fromstring(mark))
    message.send()
    check("and is nobody else's business", (await friend.message("seen")).xml.find(f"{{{DISPLAYED}}}displayed") is None)
    await next_of(phone.copies, "a copy")


async def state(check, phone, friend):
    # Something from before that matters to the phone brings along what waits for it; then it is tried once more.
    for _ in range(3):
        await phone.settle()
        while not phone.presences.empty():
            phone.presences.get_nowait()
        phone["xep_0352"].send_inactive()
        await phone.settle()
        for status in ("one", "two", "three"):
            friend.send_presence(pstatus=status)
        await friend.settle()
        await phone.settle()
        if phone.presences.empty():
            break
        phone["xep_0352"].send_active()
    check("presence waits for a phone that sleeps", phone.presences.empty())
    phone["xep_0352"].send_active()
    presence = await phone.presence_of(friend.boundjid.bare, "available")
    await phone.settle()
    check("and is the last when it wakes", presence["status"] == "three" and phone.presences.empty())


async def push(check, server, phone, friend):
    app = await Device(server, "apothecary", "app").enter()
    await phone.ask(
        "set",
        f"<enable xmlns='urn:xmpp:push:0' jid='{app.boundjid.full}' node='phone-1'><x xmlns='jabber:x:data' type='submit'>"
        f"<field var='FORM_TYPE'><value>{PUBSUB}#publish-options</value></field><field var='secret'><value>s3cret</value>"
        "</field></x></enable>",
    )
    check("push is enabled")
    account = phone.boundjid.bare
    await phone.leave()
    friend.says(account, "wake up")
    wake = (await next_of(app.wakes, "a notification")).xml
    node = wake.find(f".//{{{PUBSUB}}}publish").get("node")
    secret = [value.text for value in wake.iter("{jabber:x:data}value")]
    told = ET.tostring(wake, "unicode")
    check("its app server is told", node == "phone-1" and "s3cret" in secret)
    check("and not of what or by whom", "wake up" not in told and friend.boundjid.bare not in told)
    await app.leave()


async def administration(check, server, friend, stranger):
    commands = friend["xep_0050"]
    node = "http://jabber.org/protocol/admin#add-user"
    listed = await commands.get_commands(DOMAIN, timeout=TIMEOUT)
    check("an admin finds the commands", any(item[1] == node for item in listed["disco_items"]["items"]))
    begun = (await commands.send_command(DOMAIN, node, timeout=TIMEOUT))["command"]
    form = friend["xep_0004"].make_form(ftype="submit")
    form.add_field(var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/admin")
    for name, value in (("accountjid", f"potpan@{DOMAIN}"), ("password", PASSWORD), ("password-verify", PASSWORD)):
        form.add_field(var=name, value=value)
    done = await commands.send_command(
        DOMAIN, node, action="complete", sessionid=begun["sessionid"], payload=form, timeout=TIMEOUT
    )
    check("adds an account", done["command"]["status"] == "completed")
    check("which logs in", await (made := Client(server, "potpan", PASSWORD)).login())
    await made.leave()
    check("nobody else may", await condition(stranger["xep_0050"].send_command(DOMAIN, node)) == "forbidden")


async def devices(check, server):
    for name in ("rosaline", "benvolio", "paris", "apothecary"):
        server.cli("user", "add", f"{name}@{DOMAIN}", "--password-stdin", text=PASSWORD + "\n")
    own = tuple(f"{node}" for node in (BOOKMARKS, DEVICES, DISPLAYED))
    laptop = await Device(server, "rosaline", "laptop").enter()
    phone = await Device(server, "rosaline", "phone", own).enter()
    friend = await Device(server, "benvolio", "laptop", (METADATA,)).enter()
    stranger = await Device(server, "paris", "laptop").enter()
    await befriend(laptop, friend)
    await carbons(check, laptop, phone, friend)
    await archive(check, laptop, phone, friend, stranger)
    while not phone.copies.empty():
        phone.copies.get_nowait()
    await preferences(check, laptop, phone, friend)
    await next_of(phone.copies, "a copy")
    await avatar(check, laptop, friend)
    await bookmarks(check, laptop, phone)
    await omemo(check, laptop, phone, stranger)
    await blocking(check, laptop, phone, friend)
    await displayed(check, laptop, phone, friend)
    await state(check, phone, friend)
    await administration(check, server, friend, stranger)
    await laptop.leave()
    await push(check, server, phone, friend)
    for device in (friend, stranger):
        await device.leave()

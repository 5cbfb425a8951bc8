"""slixmpp against the server: what two people and their devices do in a day. Prints one line per thing that works.

Usage: clients.py BINARY FOLDER
"""

import asyncio
import contextlib
import pathlib
import shutil
import sys

from slixmpp.exceptions import IqError

from client import TIMEOUT, Client
from devices import ADMIN, devices
from rooms import rooms, rooms_after
from server import DOMAIN, Server

passed = 0


def check(name, condition=True):
    global passed
    if not condition:
        raise SystemExit(f"FAILED: {name}")
    passed += 1
    print(f"ok  {name}", flush=True)


async def registration(server):
    juliet = Client(server, "juliet", "a rose by any other name", register=True)
    check("register in band over STARTTLS and log in", await juliet.login())
    romeo = Client(server, "romeo", "wherefore art thou", how="tls", register=True)
    check("register in band over direct TLS and log in", await romeo.login())
    taken = Client(server, "romeo", "not his", resource="x", register=True)
    check("a name that is taken is not given twice", not await taken.login())
    await taken.leave()
    return juliet, romeo


async def contacts(juliet, romeo):
    juliet.send_presence_subscription(f"romeo@{DOMAIN}", ptype="subscribe")
    request = await asyncio.wait_for(romeo.requests.get(), TIMEOUT)
    check("a contact request arrives", request["from"].bare == f"juliet@{DOMAIN}")
    romeo.send_presence_subscription(f"juliet@{DOMAIN}", ptype="subscribed")
    romeo.send_presence_subscription(f"juliet@{DOMAIN}", ptype="subscribe")
    await asyncio.wait_for(juliet.requests.get(), TIMEOUT)
    juliet.send_presence_subscription(f"romeo@{DOMAIN}", ptype="subscribed")
    await juliet.presence_of(f"romeo@{DOMAIN}", "available")
    await romeo.presence_of(f"juliet@{DOMAIN}", "available")
    for client, other in ((juliet, "romeo"), (romeo, "juliet")):
        await client.get_roster(timeout=TIMEOUT)
        item = client.client_roster[f"{other}@{DOMAIN}"]
        check(f"{other} is a contact in both directions", item["subscription"] == "both")


async def chat(juliet, romeo):
    juliet.send_message(mto=f"romeo@{DOMAIN}", mbody="Art thou not Romeo & a <Montague>?", mtype="chat")
    message = await romeo.message("Art thou not Romeo & a <Montague>?")
    check("a chat message arrives", message["from"].full == juliet.boundjid.full)
    message.reply("Neither, fair saint 🌹").send()
    await juliet.message("Neither, fair saint 🌹")
    check("and its answer")


async def queries(juliet):
    info = await juliet["xep_0030"].get_info(jid=DOMAIN, timeout=TIMEOUT)
    check("service discovery", ("server", "im", None, "Whinchat") in info["disco_info"]["identities"])
    await juliet["xep_0199"].send_ping(DOMAIN, timeout=TIMEOUT)
    version = await juliet["xep_0092"].get_version(DOMAIN, timeout=TIMEOUT)
    check("ping and version", version["software_version"]["name"] == "Whinchat")
    card = juliet["xep_0054"].make_vcard()
    card["FN"] = "Juliet Capulet"
    await juliet["xep_0054"].publish_vcard(card, timeout=TIMEOUT)
    card = await juliet["xep_0054"].get_vcard(timeout=TIMEOUT)
    check("a vCard is kept", card["vcard_temp"]["FN"] == "Juliet Capulet")


async def offline(server, juliet, romeo, how):
    await romeo.leave()
    await juliet.presence_of(f"romeo@{DOMAIN}", "unavailable")
    for number in range(3):
        juliet.send_message(mto=f"romeo@{DOMAIN}", mbody=f"good night {number}", mtype="chat")
    # The answer to a request behind them on the same stream says that the messages were read.
    await juliet["xep_0199"].send_ping(DOMAIN, timeout=TIMEOUT)
    await juliet["xep_0054"].publish_vcard(juliet["xep_0054"].make_vcard(), timeout=TIMEOUT)
    if how == "restart":
        took = server.stop()
        check(f"the server stops in time ({took:.2f} s)", took < 5)
    else:
        server.kill()
    server.start()
    romeo = Client(server, "romeo", "wherefore art thou", how="tls")
    check(f"log in again after a {how}", await romeo.login())
    for number in range(3):
        message = await romeo.message(f"good night {number}")
        if "delay" not in message or not message["delay"]["stamp"]:
            raise SystemExit(f"FAILED: no delay stamp in {message}")
    check(f"offline messages survive a {how}, in order, with their time")
    await romeo.leave()
    romeo = Client(server, "romeo", "wherefore art thou")
    await romeo.login()
    await romeo["xep_0199"].send_ping(DOMAIN, timeout=TIMEOUT)
    check("and are delivered once", romeo.messages.empty())
    juliet = Client(server, "juliet", "a rose by any other name")
    await juliet.login()
    return juliet, romeo


async def resumption(juliet, romeo, server):
    """A socket that is cut loses nothing and doubles nothing."""
    await romeo.leave()
    phone = Client(server, "romeo", "wherefore art thou", resource="phone", sm=True)
    await phone.login()
    await juliet.presence_of(f"romeo@{DOMAIN}", "available")
    await phone["xep_0199"].send_ping(DOMAIN, timeout=TIMEOUT)
    resumed = asyncio.get_event_loop().create_future()

    def on_resumed(_):
        if not resumed.done():
            resumed.set_result(True)

    phone.add_event_handler("session_resumed", on_resumed)
    phone.abort()
    for number in range(5):
        juliet.send_message(mto=f"romeo@{DOMAIN}", mbody=f"cut {number}", mtype="chat")
    await juliet["xep_0199"].send_ping(DOMAIN, timeout=TIMEOUT)
    phone.connect("127.0.0.1", server.starttls)
    check("a session is resumed after its socket was cut", await asyncio.wait_for(resumed, TIMEOUT))
    for number in range(5):
        await phone.message(f"cut {number}")
    await phone["xep_0199"].send_ping(DOMAIN, timeout=TIMEOUT)
    check("nothing was lost or doubled", phone.messages.empty())
    # The other way round: nobody knows which of them the server has read, so all come again that it has not acknowledged.
    for number in range(5):
        phone.send_message(mto=f"juliet@{DOMAIN}", mbody=f"sent {number}", mtype="chat")
    await juliet.message("sent 0")
    resumed = asyncio.get_event_loop().create_future()
    phone.abort()
    phone.connect("127.0.0.1", server.starttls)
    await asyncio.wait_for(resumed, TIMEOUT)
    for number in range(1, 5):
        await juliet.message(f"sent {number}")
    await phone["xep_0199"].send_ping(DOMAIN, timeout=TIMEOUT)
    await juliet["xep_0199"].send_ping(DOMAIN, timeout=TIMEOUT)
    check("nor of what the phone had sent", juliet.messages.empty())
    await phone.leave()
    romeo = Client(server, "romeo", "wherefore art thou")
    await romeo.login()
    await romeo["xep_0199"].send_ping(DOMAIN, timeout=TIMEOUT)
    return romeo


async def passwords(server, romeo):
    wrong = Client(server, "romeo", "not this", resource="thief")
    check("a wrong password is refused", not await wrong.login())
    await wrong.leave()
    romeo.register_plugin("xep_0004")
    romeo.register_plugin("xep_0066")
    romeo.register_plugin("xep_0077")
    await romeo["xep_0077"].change_password("parting is such sweet sorrow", jid=DOMAIN, timeout=TIMEOUT)
    check("the password is changed in band")
    old = Client(server, "romeo", "wherefore art thou", resource="old")
    check("the old one no longer works", not await old.login())
    await old.leave()
    new = Client(server, "romeo", "parting is such sweet sorrow", resource="new", how="tls")
    check("the new one does", await new.login())
    await new.leave()


async def operator(server):
    server.cli("user", "add", f"nurse@{DOMAIN}", "--password-stdin", text="ancient damnation\n")
    check("accounts are listed", f"nurse@{DOMAIN}" in server.cli("user", "list").split())
    nurse = Client(server, "nurse", "ancient damnation")
    check("an account made on the command line logs in", await nurse.login())
    server.cli("user", "remove", f"nurse@{DOMAIN}")
    await asyncio.wait_for(nurse.ended.get(), TIMEOUT)
    check("and is thrown out when it is removed")
    gone = Client(server, "nurse", "ancient damnation", resource="gone")
    check("and does not come back", not await gone.login())
    await gone.leave()


async def run(binary, folder):
    server = Server(binary, folder, extra=f'admins = ["{ADMIN}"]\n')
    try:
        juliet, romeo = await registration(server)
        await contacts(juliet, romeo)
        await chat(juliet, romeo)
        await queries(juliet)
        juliet, romeo = await offline(server, juliet, romeo, "restart")
        await rooms(check, juliet, romeo, server)
        juliet, romeo = await offline(server, juliet, romeo, "kill")
        await rooms_after(check, "kill", juliet, romeo, server)
        await chat(juliet, romeo)
        romeo = await resumption(juliet, romeo, server)
        await passwords(server, romeo)
        await operator(server)
        await devices(check, server)
        await juliet.leave()
        with contextlib.suppress(asyncio.TimeoutError, IqError):
            await romeo.leave()
    except BaseException:
        print(server.log(), file=sys.stderr)
        raise
    finally:
        server.kill()
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[2])
    shutil.rmtree(target, ignore_errors=True)
    asyncio.run(run(sys.argv[1], target))

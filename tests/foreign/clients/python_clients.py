"""One of Python's HTTP, SSE or WebSocket libraries, with its usual settings, reads the inbox of a token and prints each body
as a line of JSON, until the body "end". Arguments: the library, the server's address, the query."""

import asyncio
import json
import sys

name, url, query = sys.argv[1:]
SSE, LINES = f"{url}/v1/inbox/sse?{query}", f"{url}/v1/inbox/stream?{query}"


def show(message):
    print(json.dumps(message["body"]), flush=True)
    if message["body"] == "end":
        sys.exit()


def show_page(text):
    for message in json.loads(text).get("messages", []):
        show(message)


def show_event(kind, data):
    if kind == "message":  # an event that says nothing must not come out as one with data ""
        show(json.loads(data))


async def websockets():
    from websockets.asyncio.client import connect

    async with connect(f"{url.replace('http', 'ws')}/v1/inbox/ws?{query}") as socket:
        async for frame in socket:
            show_page(frame)


async def aiohttp_lines():
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(LINES) as reply:
        async for line in reply.content:
            show_page(line)


async def aiohttp_socket():
    import aiohttp

    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/v1/inbox/ws?{query}") as socket:
        async for frame in socket:
            show_page(frame.data)


def httpx_lines():
    import httpx

    with httpx.stream("GET", LINES, timeout=60) as reply:
        for line in reply.iter_lines():
            show_page(line)


def httpx_sse():
    import httpx
    from httpx_sse import connect_sse

    with httpx.Client(timeout=60) as client, connect_sse(client, "GET", SSE) as source:
        for event in source.iter_sse():
            show_event(event.event, event.data)


def requests_lines():
    import requests

    with requests.get(LINES, stream=True, timeout=60) as reply:
        for line in reply.iter_lines(chunk_size=1):
            show_page(line)


def sseclient_py():
    import requests
    from sseclient import SSEClient

    with requests.get(SSE, stream=True, timeout=60, headers={"Accept": "text/event-stream"}) as reply:
        for event in SSEClient(reply).events():
            show_event(event.event, event.data)


read = globals()[name]
if asyncio.iscoroutinefunction(read):
    asyncio.run(read())
else:
    read()

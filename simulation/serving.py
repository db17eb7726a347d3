"""Serves bots and a REST API on loopback."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import uvicorn
from aiohttp import web
from fastapi import FastAPI

START_SECS = 60  # a bot loads all of Pipecat


@asynccontextmanager
async def serve_routes(*routes: web.RouteDef) -> AsyncIterator[str]:
    """Serves aiohttp's routes in this event loop; gives their root URL."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve(app: FastAPI, port: int = 0, **options: Any) -> AsyncIterator[int]:
    """Serves a web application in this event loop, with uvicorn's options; gives its port."""
    options = {"log_level": "warning", "timeout_graceful_shutdown": 1} | options
    config = uvicorn.Config(app, port=port, **options)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@contextmanager
def serve_in_thread(app: FastAPI, port: int = 0) -> Iterator[int]:
    """Serves a web application in a thread of its own, whose event loop may be held up."""
    ready = threading.Event()
    loop, done = asyncio.new_event_loop(), asyncio.Event()

    async def run() -> None:
        nonlocal port
        async with serve(app, port) as port:
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    ready.wait()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


async def wait_until_served(url: str) -> None:
    """Returns when a server that is starting answers."""
    async with asyncio.timeout(START_SECS), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)

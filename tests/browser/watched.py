"""What does a page do beside showing itself?"""

from __future__ import annotations

from playwright.sync_api import Page


class Watched:
    """A page, and what it did beside showing itself."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda said: self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda asked: self.requests.append(asked.url))

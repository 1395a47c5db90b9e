"""What the store holds of many users, read while a file is worked through."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from cli.loading import open_patiently

if TYPE_CHECKING:
    from bundle.request import StoredUser
    from service.settings import Settings

USERS_A_READ: Final = 500


class StoredUsers:
    """An open store; used as a context.

    Raises:
        service.errors.SettingsError: if the URL cannot be used or the embedded server does not start.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._store = open_patiently(self._settings)
        return self

    def read(self, users: Sequence[str]) -> dict[str, StoredUser]:
        """What is known of some users, by user.

        Raises:
            service.behaviours.StoreError: if the store does not answer.
        """
        return self._runner.run(self._read(users))

    async def _read(self, users: Sequence[str]) -> dict[str, StoredUser]:
        from bundle.request import StoredUser

        found: dict[str, StoredUser] = {}
        for start in range(0, len(users), USERS_A_READ):
            part = users[start : start + USERS_A_READ]
            for user, data in zip(part, (await self._store.read(part)).users, strict=True):
                found[user] = StoredUser(data.behaviours, dict(data.features))
        return found

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.run(self._store.close())
        self._runner.close()

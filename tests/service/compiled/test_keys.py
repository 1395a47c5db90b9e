"""Keys packed by compiled code are the command that the store's library packs."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.behaviours import open_store
from service.behaviours.base import StoredFeatures
from service.behaviours.connection import pack
from service.compiled.keys import UserKeys
from service.compiled.users import Texts, UserReader
from service.settings import StoreSettings

IDS = ["7", "ü", "東京 7", "x" * 300, "}{", "a\u2028b", "7"]


@pytest.fixture
def texts(compiled_library: Path, monkeypatch: pytest.MonkeyPatch) -> Texts:
    monkeypatch.setattr("service.compiled.library.LIBRARY", compiled_library)
    body = json.dumps({"users": [{"user_id": user} for user in IDS]}, ensure_ascii=False, indent=1).encode()
    found = UserReader(["age"], [False]).read(body, 10)
    assert found is not None
    return found.user_ids


def test_the_command_is_the_same(texts: Texts) -> None:
    keys = UserKeys("p:epoch", "p:feat:{", texts)
    assert list(keys) == ["p:epoch", *(f"p:feat:{{{user}}}" for user in IDS)]
    assert (len(keys), keys[1], keys[-2:]) == (8, "p:feat:{7}", ["p:feat:{a\u2028b}", "p:feat:{7}"])
    assert keys.command("MGET") == pack(("MGET", *keys))
    some = UserKeys("p:epoch", "p:feat:{", texts[:1])
    assert some.command("MGET") == pack(("MGET", "p:epoch", "p:feat:{7}"))


def test_a_server_answers_both_the_same(texts: Texts, real_store_url: str) -> None:
    async def read(ids: Sequence[str]) -> StoredFeatures:
        store = open_store(StoreSettings(url=real_store_url, prefix="keys"))
        try:
            await store.put_users([(user, {"age": place}) for place, user in enumerate(IDS[:4])])
            return await store.read_features(ids)
        finally:
            await store.close()

    found = asyncio.run(read(texts))
    assert found == asyncio.run(read(IDS))
    assert found.values == [b'{"age":0}', b'{"age":1}', b'{"age":2}', b'{"age":3}', None, None, b'{"age":0}']

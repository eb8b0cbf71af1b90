from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from relay.own_certificate import CertificateKeeper, open_certificates, own_names
from relay.settings import Settings, SettingsError
from relay.state import State
from transport.certificates import CertificateError, EphemeralCertificateStore, generate


def test_a_relay_without_files_makes_one_for_what_it_is_bound_to():
    settings = Settings(bind="relay.example")
    assert {"relay.example", "localhost"} <= open_certificates(settings, State()).current.names
    assert "relay.example" in own_names(settings)


def test_files_that_cannot_be_used_are_an_error_of_the_settings(tmp_path):
    own = generate(["localhost"], datetime.now(UTC))
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    settings = Settings(cert_pem=chain, key_pem=key)
    chain.write_bytes(own.chain_pem())
    with pytest.raises(SettingsError, match=f"^--key-pem {key}: No such file"):
        open_certificates(settings, State())
    key.write_bytes(own.private_key_pem())
    chain.unlink()
    with pytest.raises(SettingsError, match=f"^--cert-pem {chain}: No such file"):
        open_certificates(settings, State())
    assert own_names(settings) == ()


def test_what_clients_hold_against_it_is_told_once(lines):
    long_ago = EphemeralCertificateStore(["a.example"], datetime.now(UTC) - timedelta(days=30))
    keeper = CertificateKeeper(long_ago, print)
    keeper.complain()
    keeper.complain()
    assert len([line for line in lines if "expired" in line]) == 1


@pytest.mark.parametrize("error", [CertificateError(Path("a.pem"), "no key"), RuntimeError("broken")])
def test_one_that_cannot_be_renewed_stays(lines, error):
    class Broken:
        def refresh(self, now, *, force):
            raise error

    said, errors = [], []
    keeper = CertificateKeeper(cast("Any", Broken()), said.append)
    assert not asyncio.run(keeper.refresh(asked=True, errors=errors))
    assert said == []
    assert [str(error) in one for one in errors] == [True]
    assert any("the certificate stays as it was" in line for line in lines)


def test_it_is_kept_by_looks_at_an_interval_that_may_change_and_reloads_that_are_asked_for():
    done, intervals = [], itertools.chain((3600.0, 0.0, 0.0), itertools.repeat(3600.0))

    async def keep():
        asked, finished = asyncio.Event(), asyncio.Event()
        asked.set()

        async def look():
            done.append("look")
            if done.count("look") == 2:
                asked.set()

        async def reload():
            done.append("reload")
            if len(done) > 1:
                finished.set()

        keeper = CertificateKeeper(EphemeralCertificateStore(["a.example"], datetime.now(UTC)), print)
        kept = asyncio.create_task(keeper.keep(asked, lambda: next(intervals), look, reload))
        await finished.wait()
        kept.cancel()

    asyncio.run(asyncio.wait_for(keep(), 20))
    assert done == ["reload", "look", "look", "reload"]

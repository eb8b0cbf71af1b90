"""The certificate that a relay shows: of its own making, or the operator's files."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from loguru import logger

from relay.certs import local_names
from relay.setting_kinds import flag
from relay.settings import SettingsError
from transport.certificates import CertificateError, EphemeralCertificateStore, FileCertificateStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from relay.settings import Settings
    from relay.state import State
    from transport.certificates import CertificateStore


KEPT = "certificates.pem"
"""File of the relay's state with the certificates that it has made."""


def own_names(settings: Settings) -> tuple[str, ...]:
    """Tell the names of a relay that makes its own certificate; one of an authority says them itself."""
    return () if settings.cert_pem else (*local_names(), settings.bind)


def open_certificates(settings: Settings, state: State) -> CertificateStore:
    """Read or make the certificate. Raises SettingsError."""
    if settings.cert_pem is None or settings.key_pem is None:
        kept = state.file(KEPT)
        return EphemeralCertificateStore(own_names(settings), datetime.now(UTC), kept)
    return open_files(settings.cert_pem, settings.key_pem)


def open_files(certificate: Path, key: Path) -> FileCertificateStore:
    """Read the operator's files. Raises SettingsError that names the flag of the one that cannot be used."""
    try:
        return FileCertificateStore(certificate, key)
    except CertificateError as error:
        named = "cert_pem" if error.path == certificate else "key_pem"
        raise SettingsError(f"{flag(named)} {error}") from None


def describe_certificate(certificates: CertificateStore) -> dict[str, Any]:
    """Describe the certificate that new sessions get."""
    current, following = certificates.current, certificates.next
    return {
        "sha256": current.sha256,
        "next_sha256": None if following is None else following.sha256,
        "names": sorted(current.names),
        "self_signed": current.is_self_signed,
        "pinnable": current.can_be_pinned,
        "not_before": current.not_before.isoformat(),
        "not_after": current.not_after.isoformat(),
        "expires_in": (current.not_after - datetime.now(UTC)).total_seconds(),
        "complaints": list(current.complaints(datetime.now(UTC))),
    }


class CertificateKeeper:
    """Renews or reads the certificate, and says so."""

    def __init__(self, certificates: CertificateStore, say: Callable[[str], object]) -> None:
        """``say`` takes lines for whoever started the relay."""
        self._certificates = certificates
        self._say = say
        self._told: tuple[str, ...] = ()

    async def keep(
        self,
        asked: asyncio.Event,
        interval: Callable[[], float],
        look: Callable[[], Awaitable[object]],
        reload: Callable[[], Awaitable[object]],
    ) -> NoReturn:
        """Call ``look`` once ``interval()`` seconds have passed, ``reload`` once ``asked`` is set; and again.

        Before each wait it is logged what clients will hold against the certificate.
        """
        while True:
            self.complain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval()):
                    await asked.wait()
            if asked.is_set():
                asked.clear()
                await reload()
            else:
                await look()

    def complain(self) -> None:
        """Log what clients will hold against the certificate, once."""
        found = self._certificates.current.complaints(datetime.now(UTC))
        for complaint in found:
            if complaint not in self._told:
                logger.warning("{}", complaint)
        self._told = found

    async def refresh(self, *, asked: bool, errors: list[str] | None = None) -> bool:
        """Read or renew the certificate where it is time, or where it was asked for; whether it changed.

        What is wrong with the files is logged, and noted in ``errors``.
        """
        try:
            changed = await asyncio.to_thread(self._certificates.refresh, datetime.now(UTC), force=asked)
        except Exception as error:  # noqa: BLE001 - whatever a file may contain, sessions go on
            is_known = isinstance(error, CertificateError)
            said = f"the certificate stays as it was: {error if is_known else repr(error)}"
            logger.opt(exception=not is_known).error("{}", said)
            if errors is not None:
                errors.append(said)
            return False
        if changed:
            self._say(f"Certificate SHA-256 Hash: {self._certificates.current.sha256}")
            logger.info("new certificate for new sessions: {}", self._certificates.current.sha256)
        elif asked:
            logger.info("the certificate has not changed")
        return changed

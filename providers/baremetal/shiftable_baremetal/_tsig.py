"""Signatures of one conversation with a name server: of its request, and of what is answered (TSIG, RFC 8945).

dnspython signs too; to import what it needs for that takes as long as to transfer a zone of thousands.
"""

from __future__ import annotations

import base64
import hmac
import struct
from collections.abc import Callable

import attrs

from shiftable.dns.driver import labels
from shiftable.errors import ConfigError
from shiftable_baremetal._axfr import Labels, Malformed, Parsed, packed
from shiftable_baremetal._rfc2136_errors import BadSignature, Refused

__all__ = ["Key", "Signer", "key_of"]

_TSIG, _ANY = 250, 255
_FUDGE = 300  # seconds that two clocks may differ (RFC 8945, 10)
_UNSIGNED = 100  # messages of a transfer that may come between two signatures (RFC 8945, 5.3.1)
_UNABLE = frozenset({16, 17})  # BADSIG, BADKEY: who says so cannot sign it (RFC 8945, 5.3.2)
_OWNER = struct.Struct("!HHIH")
_TIMES = struct.Struct("!HIH")
_SHORT = struct.Struct("!H")
_ORIGINAL = struct.Struct("!HHH")


@attrs.frozen
class Key:
    """A secret that a server shares.

    Args:
        name: in lower case.
        algorithm: ``hmac-sha256``.
    """

    name: Labels
    algorithm: str
    _secret: bytes = attrs.field(repr=False)

    def begun(self, before: bytes = b"") -> hmac.HMAC:
        """Begin a signature.

        Args:
            before: the signature that it follows.
        """
        made = hmac.new(self._secret, digestmod=self.algorithm.removeprefix("hmac-"))
        if before:
            made.update(_SHORT.pack(len(before)) + before)
        return made


class Signer:
    """Signs one request, and checks the messages of its answer.

    Args:
        key: ``None``: nothing is signed.
        clock: seconds since 1970.
    """

    def __init__(self, key: Key | None, clock: Callable[[], float]) -> None:
        self._key = key
        self._clock = clock
        self._mac = b""
        self._running: hmac.HMAC | None = None
        self._unsigned = 0
        self._owner = b"" if key is None else packed(key.name)
        self._algorithm = b"" if key is None else packed(labels(key.algorithm))

    def signed(self, wire: bytes) -> bytes:
        """Return a message with its signature, if there is a key."""
        if self._key is None:
            return wire
        now = int(self._clock())
        times = _TIMES.pack(now >> 32, now & 0xFFFFFFFF, _FUDGE)
        made = self._key.begun()
        made.update(wire + self._variables(times, _SHORT.pack(0) * 2))
        self._mac = made.digest()
        rdata = b"".join((self._algorithm, times, _SHORT.pack(len(self._mac)), self._mac, wire[:2], _SHORT.pack(0) * 2))
        count = int.from_bytes(wire[10:12], "big") + 1
        record = _OWNER.pack(_TSIG, _ANY, 0, len(rdata))
        return b"".join((wire[:10], _SHORT.pack(count), wire[12:], self._owner, record, rdata))

    def check(self, wire: bytes, message: Parsed, *, multi: bool = False) -> None:
        """Check one message.

        Args:
            multi: it is one of several, of which not all need a signature.

        Raises:
            BadSignature: its signature is wrong, or the server did not accept ours.
            Malformed: it has none.
        """
        if self._key is None:
            return
        if message.tsig is None:
            self._unsigned += 1
            if self._running is not None and self._unsigned < _UNSIGNED:
                self._running.update(wire)
                return
            if message.rcode:  # a server that does not know us cannot sign; what it refuses is not done
                raise Refused(message.rcode)
            raise Malformed("the answer is not signed")
        self._unsigned = 0
        start, (owner, _, _, rdata) = message.tsig
        times, mac, number, told = self._read(owner, rdata)
        error = int.from_bytes(told[:2], "big")
        if error in _UNABLE:
            raise BadSignature.by_server(error)
        expected = self._running or self._key.begun(self._mac)
        count = int.from_bytes(wire[10:12], "big") - 1
        expected.update(b"".join((number, wire[2:10], _SHORT.pack(count), wire[12:start])))
        expected.update(times if self._running is not None else self._variables(times, told))
        if not hmac.compare_digest(expected.digest(), mac):
            raise BadSignature("BADSIG", "the answer's signature is wrong: it is from somebody else, or was altered")
        if error:
            raise BadSignature.by_server(error)
        high, low, fudge = _TIMES.unpack(times)
        if abs((high << 32 | low) - int(self._clock())) > fudge:
            raise BadSignature("BADTIME", "the server's clock and ours differ by more than five minutes")
        if multi:
            self._running = self._key.begun(mac)

    def finish(self) -> None:
        """Make sure that the last message was signed."""
        if self._key is not None and self._unsigned:
            raise Malformed("the last message of the transfer is not signed")

    def _variables(self, times: bytes, told: bytes) -> bytes:
        """Return what is signed beside a message (RFC 8945, 4.3.3)."""
        return b"".join((self._owner, struct.pack("!HI", _ANY, 0), self._algorithm, times, told))

    def _read(self, owner: Labels, rdata: bytes) -> tuple[bytes, bytes, bytes, bytes]:
        """Return of a signature its times, itself, the message's number, and what the server says of ours."""
        if packed(owner).lower() != self._owner:
            raise BadSignature("BADKEY", "the answer is signed with another key")
        at = len(self._algorithm)
        if rdata[:at].lower() != self._algorithm:
            raise BadSignature("BADKEY", "the answer is signed by another algorithm")
        begins = at + _TIMES.size + 2
        ends = begins + int.from_bytes(rdata[begins - 2 : begins], "big")
        number, told = rdata[ends : ends + 2], rdata[ends + 2 :]
        if len(told) < 4 or len(told) != 4 + int.from_bytes(told[2:4], "big"):
            raise Malformed("the signature is no signature")
        return rdata[at : begins - 2], rdata[begins:ends], number, told


def key_of(name: str, secret: str, algorithm: str) -> Key:
    """Make a key for signatures.

    Raises:
        ConfigError: it is none; the error does not show it.
    """
    try:
        key = Key(tuple(label.lower() for label in labels(name)), algorithm, base64.b64decode(secret, validate=True))
        key.begun()
    except ValueError:  # some quote the secret
        text = "rfc2136.key_secret must be the base64 text that tsig-keygen prints, and key_name a DNS name"
        raise ConfigError(text) from None
    return key

import base64
import hashlib
import hmac
import time


def verify(secret, headers, body, now=None):
    """Raises ValueError unless a delivery was signed with the secret less than
    five minutes from now. headers are read by lower-case name, body is the
    bytes that came."""
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    if not key:
        raise ValueError("this is no signing secret")
    id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    now = time.time() if now is None else now
    if not (timestamp.isascii() and timestamp.isdigit()) or abs(now - int(timestamp)) > 300:
        raise ValueError("too old, or from the future")
    mac = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    want = b"v1," + base64.b64encode(mac)
    signatures = headers.get("webhook-signature", "").split()
    if not any(hmac.compare_digest(s.encode(), want) for s in signatures):
        raise ValueError("no signature fits")

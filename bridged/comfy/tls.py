"""What is wrong between a backend's TLS and ours, in words that an operator can act on and that name no address.

OpenSSL's own words for a wrong name repeat the name, so its numbers are used: the verification results of
`openssl/x509_vfy.h` (also in `man openssl-verification-options`), and the alerts of RFC 8446 6.
"""

from __future__ import annotations

import ssl

UNTRUSTED = "comes from no authority that is trusted here; give the one that made it as `tls_ca`"
OTHER_NAME = "is for another name than the one in `url`"

RESULTS = {
    9: "is not valid yet; compare both clocks",
    10: "has expired",
    18: UNTRUSTED,
    19: UNTRUSTED,
    20: UNTRUSTED,
    21: UNTRUSTED,
    26: "is not made for a server",
    62: OTHER_NAME,
    64: OTHER_NAME,
}

WANTS_OURS = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_NO_CERTIFICATE"})

REFUSES_OURS = frozenset(
    {
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_DECRYPT_ERROR",
    }
)

NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})


def trouble(error: BaseException) -> str:
    """What a failed connection was about, if that was TLS; "" where it was something else."""
    found = _ssl_error(error)
    if isinstance(found, ssl.SSLCertVerificationError):
        why = RESULTS.get(found.verify_code, f"does not pass verification (OpenSSL's result {found.verify_code})")
        return f"its certificate {why}"
    if found is None or not found.reason or isinstance(found, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ""
    if found.reason in WANTS_OURS:
        return "it wants a certificate of ours; give `tls_cert` and `tls_key`"
    if found.reason in REFUSES_OURS:
        return "it does not accept the certificate in `tls_cert`"
    if found.reason in NO_TLS:
        return "it does not speak TLS; is its url http:// and not https://?"
    return f"its TLS fails ({found.reason})"


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    """The first one in what led to the error."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error

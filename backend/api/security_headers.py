"""Headers that tell browsers not to sniff, frame or store replies, and what pages may load."""

_OF_ALL = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
CACHE = b"cache-control"
OF_REPLIES = [
    *_OF_ALL,
    (CACHE, b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
# Their own scripts, styles and document; both pages put scripts or styles inline. `blob:` is a stored image that a page
# has fetched.
OF_PAGES = [
    *_OF_ALL,
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'",
    ),
]
# Nothing inline, and no text becomes HTML or script. The one policy lets the console start its own worker: under
# `trusted-types 'none'` Chromium constructs no worker at all.
OF_CONSOLE = [
    *_OF_ALL,
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        b"worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        b"require-trusted-types-for 'script'; trusted-types console-worker",
    ),
]

"""300 texts that would run a script, load something or leave their place, if a page took them for more than text."""

from __future__ import annotations

PAYLOADS = (
    "<script>window.hurt = 1</script>",
    "<SCRIPT SRC=//127.0.0.1:9/x.js></SCRIPT>",
    "<img src=x onerror='window.hurt = 1'>",
    "<svg onload='window.hurt = 1'></svg>",
    "<iframe src='javascript:parent.hurt = 1'></iframe>",
    "<a href='javascript:window.hurt = 1'>click</a>",
    "<body onload='window.hurt = 1'>",
    "<style>@import 'http://127.0.0.1:9/x.css';</style>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<base href='http://127.0.0.1:9/'>",
    "<form action=http://127.0.0.1:9/><input autofocus onfocus='window.hurt = 1'></form>",
    "<object data='data:text/html,<script>parent.hurt = 1</script>'></object>",
    "<math><mtext><table><mglyph><style><img src=x onerror='window.hurt = 1'>",
    "<details open ontoggle='window.hurt = 1'>",
    "<video><source onerror='window.hurt = 1'></video>",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}x{% endfor %}",
    "{0.__class__} {number} %s %(name)s ${hurt}",
    "$\\frac{1}{2}$ \\input{/etc/passwd} $$",
    "]]>--></pre></td></table></main></style>",
    "\u202egnp.exe\u202c \u2066hidden\u2069",
    "\u200b\u200d\ufeff invisible",
    "\x1b[2J\x1b]0;title\x07",
    '=HYPERLINK("http://127.0.0.1:9/", "x")',
    "&lt;script&gt;window.hurt = 1&lt;/script&gt; &#60;b&#62;",
    "javascript:window.hurt=1//",
    "data:text/html;base64,PHNjcmlwdD5wYXJlbnQuaHVydD0xPC9zY3JpcHQ+",
    "\ud83d\ude00 emoji, \u4e2d\u6587, \u0627\u0644\u0639\u0631\u0628\u064a\u0629".encode(
        "utf-16", "surrogatepass"
    ).decode("utf-16"),
    "x" * 3000,
)
FRAMES = (
    "{}", "'{}", '"{}', '">{}', "'>{}", "</td>{}", "</title>{}", "<!-- {}", "</style>{}", "\\{}",
)  # fmt: skip
HOSTILE = tuple(frame.replace("{}", payload) for payload in PAYLOADS for frame in FRAMES)
assert len(HOSTILE) == 300

"""``berrymq doctor``: find out what is wrong with an endpoint, or with this installation.

`command` is the command. What it finds are `check.Check`s. For each kind of endpoint a module
yields them as it finds them: `zeromq` (with `ipc`, `native` and `foreign`), `nats_server` and
`web`; `installation` is for none. They share `network` (names, addresses, ports) and `first_words`
(who answers); `files` is about those of keys. `check`, `greeting`, `answer` and `foreign` do no
I/O.

Nothing else imports from here.
"""

__all__: list[str] = []

#!/usr/bin/python3
"""The reason codes of MQTT 5.0 that a server may send: when this one does, the test that sees it, and why others never
leave. The table in docs/PROTOCOL.md is made of it.

reasons.py            writes the table
reasons.py --check    says what is wrong (lint.reasons): a code and packet that the standard allows to a server (the codec's
                      own table, gateway/mqtt/packet.c) and that has no row here, or two; a row that the standard does not
                      know; a test that is not there or does not name its code; a code that the code uses and that has only
                      rows that say never; one that nothing uses and that is said to be sent; a page that is another
"""

import ast
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "PROTOCOL.md"
CODEC = ROOT / "gateway" / "mqtt"
BEGIN, END = "<!-- made by tests/conformance/reasons.py -->", "<!-- end of what it makes -->"

# (code, packets, when, what shows it). "here": test_conf_reasons.py has a situation for each packet. Else one test, as in
# mqtt5.py, that names the code.
SENT = [
    (0x00, "CONNACK", "taken", "here"),
    (0x00, "PUBACK PUBREC", "durable, or a duplicate of what is", "here"),
    (0x00, "PUBREL PUBCOMP", "the second half of QoS 2", "here"),
    (0x00, "SUBACK", "QoS 0 granted", "here"),
    (0x00, "UNSUBACK", "unsubscribed", "here"),
    (0x01, "SUBACK", "QoS 1 granted", "here"),
    (0x02, "SUBACK", "QoS 2 granted", "here"),
    (0x11, "UNSUBACK", "there was no such subscription", "here"),
    (0x81, "CONNACK DISCONNECT", "malformed packet", "here"),
    (0x82, "CONNACK DISCONNECT", "protocol error: a value, a property, or a packet at this time, that may not be", "here"),
    (0x83, "CONNACK", "`tg-pos`; a will with half an identity (`tg-seq` alone)", "here"),
    (0x83, "PUBACK PUBREC", "`conflict`, half an identity, `tg-deliver-at`, RETAIN on a topic with `store: false`", "here"),
    (0x83, "SUBACK", "`$...` that is not there, `tg-from` that is none or not possible", "here"),
    (0x85, "CONNACK", "client identifier `$bridge/...`", "here"),
    (0x86, "CONNACK", "bad token, wrong user name or password", "here"),
    (0x87, "CONNACK", "token expired or not valid yet; anonymous where that may not be; a will to where the client may not publish", "here"),
    (0x87, "PUBACK PUBREC", "the client may not publish there, nobody may to `$...`", "here"),
    (0x87, "SUBACK", "the client may not subscribe to that", "here"),
    (0x87, "DISCONNECT", "token revoked, or a filter that is not permitted any more", "e2e/test_revocation.py::test_the_revoked_lose_their_connections_on_all_loops"),
    (0x88, "CONNACK", "the session's record could not be written (no room on the disk)", "e2e/test_retention.py::test_a_start_on_a_full_disk_serves_what_there_is"),
    (0x89, "CONNACK", "more than `auth.queue` passwords wait to be checked; no memory", "e2e/test_passwords.py::test_passwords_do_not_hold_the_loop"),
    (0x8B, "DISCONNECT", "the node stops or drains", "e2e/test_drain.py::test_what_is_owed_is_answered_first"),
    (0x8C, "CONNACK", "any authentication method", "here"),
    (0x8D, "DISCONNECT", "nothing came for one and a half times the keep alive", "connect::silence_of_one_and_a_half_times"),
    (0x8E, "DISCONNECT", "another connection with the client identifier", "here"),
    (0x8F, "SUBACK", "no filter, or over `limit.topic_bytes`, `limit.topic_levels`", "here"),
    (0x90, "CONNACK", "the will's topic: wildcards, or over the limits", "here"),
    (0x90, "PUBACK PUBREC", "topic over `limit.topic_bytes`, `limit.topic_levels`", "here"),
    (0x90, "DISCONNECT", "wildcards in the topic of a PUBLISH", "here"),
    (0x92, "PUBREL PUBCOMP", "identifier that is not in use", "here"),
    (0x93, "DISCONNECT", "more QoS 1 and 2 open than our Receive Maximum", "here"),
    (0x94, "DISCONNECT", "topic alias 0 or above our maximum", "here"),
    (0x95, "DISCONNECT", "packet over our maximum, more than 1,024 filters; an answer over the client's maximum", "here"),
    (0x97, "CONNACK", "will over `limit.message_bytes`; `limit.sessions`, `limit.sessions_bytes`", "here"),
    (0x97, "PUBACK PUBREC", "over `limit.message_bytes`, `limit.retained`; properties or `tg-key` too long; the log has no room", "here"),
    (0x97, "SUBACK", "over `limit.subscriptions`, `limit.session_bytes`, `limit.shared_groups`", "here"),
    (0x97, "DISCONNECT", "the session's record cannot be written: over `limit.sessions_bytes`, or the log has no room", "here"),
    (0x98, "DISCONNECT", "closed by `DELETE /v1/connections/<id>`", "e2e/test_api_lookups.py::test_kicked"),
    (0x99, "CONNACK", "the will's payload is not what its properties say", "here"),
    (0x99, "PUBACK PUBREC", "a payload that is not what its properties say", "here"),
    (0x9E, "SUBACK", "`$share/...` where there are no shared subscriptions", "here"),
    (0x9F, "CONNACK", "over `limit.connect_rate_user`", "e2e/test_rates.py::test_a_user_who_comes_too_often"),
    (0xA0, "DISCONNECT", "the token has expired", "e2e/test_expiry.py::test_an_expired_token_ends_its_connections"),
]

NO_AUTH = "there is no authentication method yet (0x8C)"
ALL_QOS = "every QoS is granted"
ONE_NODE = "no other node can be named yet"
# (code, packets, why)
NEVER = [
    (0x00, "DISCONNECT", "the server ends no connection without a reason"),
    (0x00, "AUTH", NO_AUTH),
    (0x10, "PUBACK PUBREC", "a message is stored whoever listens, and may be read later"),
    (0x18, "AUTH", NO_AUTH),
    (0x80, "CONNACK", "every refusal has a code that says more"),
    (0x80, "PUBACK PUBREC SUBACK DISCONNECT", "only when memory runs out, or (PUBACK, PUBREC) when a log on Kafka has not said whether it has the message; a write to the disk that fails ends the node, and nothing is answered"),
    (0x80, "UNSUBACK", "an UNSUBSCRIBE is never refused"),
    (0x83, "UNSUBACK", "an UNSUBSCRIBE is never refused"),
    (0x83, "DISCONNECT", "what is not in this build is refused where it is asked for, and the connection stays"),
    (0x84, "CONNACK", "a protocol or level that is not spoken gets return code 1, in the form of 3.1.1, which all can read"),
    (0x87, "UNSUBACK", "an UNSUBSCRIBE is never refused"),
    (0x89, "DISCONNECT", "a busy node reads more slowly"),
    (0x8A, "CONNACK", "nobody is banned: a revoked token is 0x87"),
    (0x8C, "DISCONNECT", NO_AUTH),
    (0x8F, "UNSUBACK", "a filter that is none was not subscribed: 0x11"),
    (0x8F, "DISCONNECT", "SUBACK says it, and the connection stays"),
    (0x91, "PUBACK PUBREC SUBACK UNSUBACK", "an identifier again is a repetition (QoS 2) or a new packet"),
    (0x95, "CONNACK", "a CONNECT over our maximum is closed before its version is known"),
    (0x96, "DISCONNECT", "who publishes too fast is read more slowly (QoS 0: dropped and counted)"),
    (0x99, "DISCONNECT", "PUBACK and PUBREC say it (QoS 0: refused and counted)"),
    (0x9A, "CONNACK DISCONNECT", "retained messages are always there"),
    (0x9B, "CONNACK DISCONNECT", ALL_QOS),
    (0x9C, "CONNACK DISCONNECT", ONE_NODE),
    (0x9D, "CONNACK DISCONNECT", ONE_NODE),
    (0x9E, "DISCONNECT", "SUBACK says it, and the connection stays"),
    (0x9F, "DISCONNECT", "the rate is looked at before CONNACK"),
    (0xA1, "SUBACK DISCONNECT", "subscription identifiers are always there"),
    (0xA2, "SUBACK DISCONNECT", "wildcards are always there"),
]


def pairs(rows):
    return [(packet, row[0]) for row in rows for packet in row[1].split()]


def codes_by_name():
    text = (CODEC / "packet.h").read_text()
    return {name: int(number, 16) for name, number in re.findall(r"(MQTT_RC_\w+) = (0x\w+)", text)}


def allowed():
    """What the codec lets a server send, from its table."""
    text = (CODEC / "packet.c").read_text()
    groups = {name: re.findall(r"IN\((\w+)\)", value) for name, value in re.findall(r"#define (\w+) +\((IN\(.*)\)", text)}
    names = codes_by_name()
    found = set()
    for name, rule in re.findall(r"\[(MQTT_RC_\w+)\] = \{([^}]*)\}", text):
        server = rule.rsplit(",", 1)[1]
        packets = [*re.findall(r"IN\((\w+)\)", server), *(packet for group, members in groups.items()
                                                         if re.search(rf"\b{group}\b", server) for packet in members)]
        found |= {(packet, names[name]) for packet in packets}
    return found


def used():
    """Codes that the connections name, outside of the codec."""
    names = codes_by_name()
    text = "".join(path.read_text() for path in CODEC.glob("*.c") if not path.name.startswith("packet"))
    return {names[name] for name in set(re.findall(r"MQTT_RC_\w+", text))} - {0x04}  # 0x04 is the client's


def source_of(test):
    where, _, function = test.partition("::")
    path = ROOT / "tests" / where if where.startswith("e2e/") else HERE / f"test_conf_{where}.py"
    function = function if where.startswith("e2e/") else f"test_{function}"
    text = path.read_text() if path.exists() else "pass"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return ast.get_source_segment(text, node)
    return None


def flaws():
    rows = pairs(SENT) + pairs(NEVER)
    name = "{0[0]} {0[1]:#04x}".format
    for pair in sorted({pair for pair in rows if rows.count(pair) > 1}):
        yield f"{name(pair)} has two rows"
    for pair in sorted(allowed() - set(rows)):
        yield f"{name(pair)}: a server may send it; does this one, and what shows it? (SENT, NEVER)"
    for pair in sorted(set(rows) - allowed()):
        yield f"{name(pair)}: no server may send that"
    said = {code for _, code in pairs(SENT)}
    spare = {code for code, _, why in NEVER if "memory" in why or "return code" in why}
    for code in sorted(used() - said - spare):
        yield f"{code:#04x} is used, and has no row in SENT"
    for code in sorted(said - used() - {0x01, 0x02, 0x81, 0x90, 0x95}):  # of the codec, or granted
        yield f"{code:#04x} is in SENT, and nothing uses it"
    for code, packets, _, evidence in SENT:
        if evidence == "here":
            continue
        source = source_of(evidence)
        if source is None:
            yield f"{packets} {code:#04x}: there is no {evidence}"
        elif f"{code:#04x}" not in source.lower():
            yield f"{packets} {code:#04x}: {evidence} does not name it"


def table():
    lines = [BEGIN, "", "| code | in | when | shown by |", "|---|---|---|---|"]
    for code, packets, when, evidence in SENT:
        test = "conformance/test_conf_reasons.py" if evidence == "here" else evidence.replace("e2e/", "").replace("test_", "")
        lines.append(f"| 0x{code:02X} | {packets.replace(' ', ', ')} | {when} | {test} |")
    lines += ["", "Never sent, though a server might:", "", "| code | in | why |", "|---|---|---|"]
    lines += [f"| 0x{code:02X} | {packets.replace(' ', ', ')} | {why} |" for code, packets, why in NEVER]
    return "\n".join([*lines, "", END])


def page():
    text = PAGE.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{PAGE.relative_to(ROOT)}: the marks {BEGIN} and {END} are wanted, once each")
    return text[:text.index(BEGIN)] + table() + text[text.index(END) + len(END):]


def main():
    found = list(flaws())
    for flaw in found:
        print(flaw)
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        print(f"{PAGE.relative_to(ROOT)} is not what tests/conformance/reasons.py makes: run it")
        return 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

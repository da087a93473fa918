"""lint.layers: who may include whom. core <- routing <- session <- gateway; a folder includes itself and those to
its left. Third-party headers stay behind the .c (or private header) that adapts them.

Usage: layers.py [ROOT]          Exit code 1: each violation on a line `file:line: why`.
"""

import re
import sys
from pathlib import Path

CHAIN = ["core", "routing", "session", "gateway"]

# Headers of libc, POSIX, Linux and the compiler: allowed everywhere.
SYSTEM = re.compile(
    r"(assert|ctype|errno|fcntl|float|ftw|inttypes|limits|math|netdb|poll|pthread|setjmp|signal|stdalign|stdarg|"
    r"stdatomic|stdbool|stddef|stdint|stdio|stdlib|string|strings|threads|time|unistd|uchar|wchar|dirent|endian|"
    r"execinfo|getopt|ifaddrs|malloc|sched|semaphore|spawn|termios|dlfcn|ucontext|x86intrin|[a-z]mmintrin|"
    r"arm_acle|sys/[a-z_]+|sanitizer/[a-z_]+|netinet/[a-z_]+|arpa/inet|net/if|linux/[a-z_]+|bits/[a-z_]+)\.h$")

# Third-party headers: pattern, the only places that may include them. A header (.h) is never such a place unless
# its name says that it is private to the .c files beside it.
THIRD_PARTY = [
    (r"yaml\.h", ["core/config_yaml.c"]),
    (r"(libwebsockets|ev)\.h", ["gateway/"]),
    (r"microhttpd\.h", ["gateway/http/"]),
    (r"jansson\.h", ["gateway/"]),
    (r"openssl/.*\.h", ["gateway/", "routing/redis_tls"]),
    (r"curl/.*\.h", ["gateway/"]),
    (r"mosquitto\.h", ["gateway/bridge/"]),
    (r"hiredis/.*\.h", ["routing/redis_link.c", "routing/redis_reply.c"]),
    (r"librdkafka/.*\.h", ["routing/kafka_"]),
]
PRIVATE_HEADER = "_private.h"

ANY_INCLUDE = re.compile(r"^\s*#\s*include\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def judge(root, path, mark, name):
    """Why this include is wrong, or None."""
    folder = path.split("/")[0]
    if mark == '"':
        if not (root / name).is_file():
            return f'"{name}" is not a file of this tree, named from its root'
        target = name.split("/")[0]
        if target not in CHAIN:
            return f'"{name}" lies outside of {", ".join(CHAIN)}'
        if CHAIN.index(target) > CHAIN.index(folder):
            return f"{folder} must not include {target} (allowed: {' <- '.join(CHAIN[:CHAIN.index(folder) + 1])})"
        return None
    if SYSTEM.match(name):
        return None
    for pattern, places in THIRD_PARTY:
        if not re.fullmatch(pattern, name):
            continue
        if not any(path.startswith(place) for place in places):
            return f"<{name}> is allowed only in {', '.join(places)}"
        if path.endswith(".h") and not path.endswith(PRIVATE_HEADER):
            return f"<{name}> must not be in a header that others include"
        return None
    return f"<{name}> is no header of libc or Linux, and no library that this program uses"


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
    files = sorted(file for folder in CHAIN for file in (root / folder).rglob("*.[ch]"))
    if not files:
        print(f"{root}: no source files")
        return 1
    wrong = 0
    for file in files:
        path = file.relative_to(root).as_posix()
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if not ANY_INCLUDE.match(line):
                continue
            include = INCLUDE.match(line)
            why = judge(root, path, *include.groups()) if include else "an include that hides its header in a macro"
            if why:
                print(f"{path}:{number}: {why}")
                wrong += 1
    print(f"{len(files)} files, {wrong} violations")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

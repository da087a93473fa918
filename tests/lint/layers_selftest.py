"""lint.layers_selftest: the layer check sees what it should, on a small made-up tree."""

import subprocess
import sys
import tempfile
from pathlib import Path

CHECK = Path(__file__).with_name("layers.py")
FINE = {
    "core/buf.h": '#include <stdint.h>\n#include "core/slice.h"\n',
    "core/slice.h": "",
    "session/hub.c": '#include "session/hub.h"\n#include "routing/topic.h"\n#include "core/buf.h"\n',
    "session/hub.h": "",
    "routing/topic.h": "",
    "gateway/ws/frame_private.h": "#include <libwebsockets.h>\n",
    "gateway/http/server.c": '#include <microhttpd.h>\n#include "session/hub.h"\n',
}
WRONG = {
    "core/up.c": ('#include "routing/topic.h"\n', "core must not include routing"),
    "routing/up.c": ('#include <errno.h>\n\n#include "gateway/edge.h"\n', "routing must not include gateway"),
    "session/relative.c": ('#include "hub.h"\n', "not a file of this tree"),
    "session/outside.c": ('#include "tests/fakes/fake.h"\n', "not a file of this tree"),
    "session/json.c": ("#include <jansson.h>\n", "allowed only in gateway/"),
    "gateway/edge.h": ("#  include <libwebsockets.h>\n", "must not be in a header"),
    "gateway/http/server.h": ("#include <microhttpd.h>\n", "must not be in a header"),
    "core/hiredis.c": ("#include <hiredis/hiredis.h>\n", "allowed only in routing/redis_link.c"),
    "routing/shard.c": ("#include <librdkafka/rdkafka.h>\n", "allowed only in routing/kafka_"),
    "core/log.c": ("\n#include <yaml.h>\n", "allowed only in core/"),
    "session/angle.c": ("#include <core/buf.h>\n", "no header of libc"),
    "core/macro.c": ("#include HEADER\n", "hides its header in a macro"),
    "core/glib.c": ("#include <glib.h>\n", "no library that this program uses"),
}


def check(tree):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in tree.items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return subprocess.run([sys.executable, str(CHECK), folder], capture_output=True, text=True)


def main():
    result = check(FINE)
    assert result.returncode == 0, result.stdout
    for name, (text, why) in WRONG.items():
        result = check({**FINE, "gateway/edge.h": "", name: text})
        line = next((line for line in result.stdout.splitlines() if line.startswith(f"{name}:")), "")
        assert result.returncode == 1 and why in line, (name, result.stdout)
        assert "1 violations" in result.stdout, result.stdout
    print("ok")


if __name__ == "__main__":
    main()

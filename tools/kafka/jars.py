"""The jars of a Kafka broker: fetched once by Maven (pom.xml has the versions), kept outside the tree.

The folder is $KAFKA_JARS, else tidegate/kafka-<version> in $XDG_CACHE_HOME (~/.cache)."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
VERSION = re.search(r"kafka_2\.13</artifactId>\s*<version>([^<]+)", POM.read_text())[1]
# Not the one that Maven thinks newest: it may want a newer Maven than Debian's.
GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
TOLD_EVERY = 20


class Trouble(Exception):
    """Of the machine or the network; the text is for a person."""


def need(program, package):
    path = shutil.which(program)
    if path is None:
        raise Trouble(f"{program} is not installed: tools/packages.sh install demo (Debian package {package})")
        raise Trouble(f"{program} is not installed: tools/packages.sh install test (Debian package {package})")
    return path


def folder():
    if os.environ.get("KAFKA_JARS"):
        return Path(os.environ["KAFKA_JARS"]).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate" / f"kafka-{VERSION}"


def fetch(say=print):
    """Fetches what is not there yet; whoever comes meanwhile waits. What is there is whole: it was renamed last."""
    kept = folder()
    if kept.is_dir():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with open(kept.parent / f"{kept.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            say(f"Fetching Kafka {VERSION} with Maven, once (about 45 MB, into {kept}) ...")
            with tempfile.TemporaryDirectory(dir=kept.parent, prefix="fetching-") as scratch:
                run_maven(Path(scratch) / "jars", kept.parent / "maven.log", say)
                (Path(scratch) / "jars").rename(kept)
            say(f"Kafka {VERSION} is there.")
    return kept


def run_maven(into, log, say):
    command = [need("mvn", "maven"), "-B", "-f", str(POM), GOAL, "-DincludeScope=runtime", f"-DoutputDirectory={into}"]
    fetched = 0
    with open(log, "w") as out:
        maven = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 text=True, errors="replace")
        for line in maven.stdout:
            out.write(line)
            fetched += "Downloaded from" in line
            if fetched % TOLD_EVERY == 0 and "Downloaded from" in line:
                say(f"  ... {fetched} files fetched")
    if maven.wait() != 0 or not list(into.glob("kafka_2.13-*.jar")):
        reasons = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line] or ["no reason given"]
        raise Trouble("Maven could not fetch Kafka's jars:\n  " + "\n  ".join(reasons[:2]) +
                      f"\n  whole log: {log}\n  It needs a network, or a mirror that ~/.m2/settings.xml names.")


def class_path():
    # Names, not a pattern: their order is then the same each time.
    return ":".join([str(HERE), *sorted(str(jar) for jar in fetch().glob("*.jar"))])

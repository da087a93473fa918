"""conf/examples: the configuration is one that a node takes, the files hang together, and their commands do what they say."""

import os
import re
import signal
import subprocess

import pytest

from clients import module
from node import PROGRAM, ROOT, WAIT_S, wait_until

EXAMPLES = ROOT / "conf" / "examples"
GRACE = re.compile(r"(\d+)s?$")


def documents(name):
    return [document for document in module("yaml").safe_load_all((EXAMPLES / name).read_text()) if document]


def check(environment, *settings):
    words = [word for setting in settings for word in ("--set", setting)]
    return subprocess.run([PROGRAM, "config", "check", "--config", EXAMPLES / "three-nodes.yaml", *words], env={**os.environ, **environment},
                          capture_output=True, text=True, timeout=WAIT_S)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "users").touch()
    (tmp_path / "redis.password").write_text("x\n")
    return [f"auth.users={tmp_path / 'users'}", f"directory.redis.password_file={tmp_path / 'redis.password'}", f"data.dir={tmp_path / 'data'}"]


def settings():
    [found] = documents("three-nodes.yaml")
    return found


def seconds(text):
    return int(GRACE.match(str(text))[1])


def drain_s():
    return seconds(settings()["drain"]["delay_ms"]) + seconds(settings()["drain"]["max_ms"])


def test_the_configuration_is_taken(files):
    done = check({"TIDEGATE_NODE__ID": "n1", "TIDEGATE_API__KEY": "k" * 32}, *files)
    assert done.returncode == 0, done.stderr
    assert settings()["log"]["backend"] == "kafka"
    keyless = check({"TIDEGATE_NODE__ID": "n1"}, *files)
    assert keyless.returncode == 78 and "api.key" in keyless.stderr


def test_compose_hangs_together(files):
    [compose] = documents("compose.yaml")
    services = compose["services"]
    nodes = {name: service for name, service in services.items() if service["image"].startswith("tidegate:")}
    brokers = {name: service for name, service in services.items() if "kafka" in service["image"]}
    assert len(nodes) == len(brokers) == 3
    assert settings()["kafka"]["brokers"] == ",".join(f"{name}:9092" for name in sorted(brokers))
    assert settings()["directory"]["redis"]["url"].split("//")[1].split(":")[0] in services
    assert len({service["environment"]["TIDEGATE_NODE__ID"] for service in nodes.values()}) == 3
    assert len({service["environment"]["KAFKA_NODE_ID"] for service in brokers.values()}) == 3
    taken = [port.rsplit(":", 1)[0] for service in nodes.values() for port in service["ports"]]
    assert len(set(taken)) == len(taken)
    for service in services.values():
        assert set(service.get("depends_on", [])) <= set(services)
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or source.startswith("./secrets/") or (EXAMPLES / source).is_file(), source
    for service in nodes.values():
        assert seconds(service["stop_grace_period"]) > drain_s()
        places = [volume.split(":")[1] for volume in service["volumes"]]
        assert {settings()["data"]["dir"], settings()["auth"]["users"], settings()["directory"]["redis"]["password_file"]} <= set(places)
        done = check({**service["environment"], "TIDEGATE_API__KEY": "k" * 32}, *files)
        assert done.returncode == 0, done.stderr


def pod():
    kinds = {document["kind"]: document for document in documents("kubernetes.yaml")}
    return kinds, kinds["StatefulSet"]["spec"]["template"]["spec"]


def test_kubernetes_hangs_together(files):
    kinds, spec = pod()
    [container] = spec["containers"]
    labels = kinds["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    services = [document for document in documents("kubernetes.yaml") if document["kind"] == "Service"]
    assert kinds["StatefulSet"]["spec"]["serviceName"] in [service["metadata"]["name"] for service in services]
    for service in services:
        assert service["spec"]["selector"].items() <= labels.items()
        assert all(port.get("targetPort", "api") in ports for port in service["spec"]["ports"])
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert kinds["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1 and kinds["StatefulSet"]["spec"]["replicas"] == 3
    assert spec["terminationGracePeriodSeconds"] > drain_s()
    defaults = module("yaml").safe_load((ROOT / "conf" / "tidegate.yaml").read_text())
    assert ports == {name: defaults[name]["port"] for name in ("mqtt", "http", "api")}
    volumes = {volume["name"] for volume in spec["volumes"]} | {"data"}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == volumes
    assert {settings()["data"]["dir"], settings()["auth"]["users"], settings()["directory"]["redis"]["password_file"],
            "/etc/tidegate/tidegate.yaml"} == set(mounts)
    done = check({variable["name"]: "k" * 32 for variable in container["env"]}, *files)
    assert done.returncode == 0, done.stderr


def test_the_probes_and_the_drain(make_node):
    """As they stand there, but for the folder."""
    _, spec = pod()
    [container] = spec["containers"]
    node = make_node({"api.key": "k" * 32, "drain.delay_ms": "10m"})
    environment = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "TIDEGATE_API__KEY": "k" * 32}

    def run(probe):
        command = [word.replace(settings()["data"]["dir"], str(node.data)) for word in probe["exec"]["command"]]
        return subprocess.run(command, env=environment, capture_output=True, timeout=WAIT_S).returncode

    names = ("startupProbe", "livenessProbe", "readinessProbe")
    wait_until(lambda: [run(container[name]) for name in names] == [0, 0, 0], "all probes to be green")
    drain = subprocess.Popen([word.replace(settings()["data"]["dir"], str(node.data)) for word in
                              container["lifecycle"]["preStop"]["exec"]["command"]], env=environment)
    wait_until(lambda: run(container["readinessProbe"]) != 0, "the node not to be ready")
    assert run(container["livenessProbe"]) == 0, "a node that drains lives"
    node.process.send_signal(signal.SIGTERM)
    assert drain.wait(WAIT_S) == 0 and node.process.wait(WAIT_S) == 0
    assert run(container["livenessProbe"]) != 0

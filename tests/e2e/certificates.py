"""Certificates for the tests, made by the openssl command: an authority of the servers, one of the clients, and a
stranger that nobody should believe."""

import ssl
import subprocess

from clients import need

KEYS = {"ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["-newkey", "rsa:2048"]}


def openssl(*arguments):
    done = subprocess.run([need("openssl"), *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Certificates:
    """Files in a folder: <name>.pem and <name>.key."""

    def __init__(self, folder):
        self.folder = folder
        for authority in ("server-ca", "client-ca", "stranger-ca"):
            openssl("req", "-x509", *KEYS["ec"], "-nodes", "-days", 10, "-subj", f"/CN={authority}", "-addext",
                    "basicConstraints=critical,CA:TRUE", "-keyout", self.key(authority), "-out", self.pem(authority))
        self.make("ec", "server-ca")
        self.make("rsa", "server-ca", kind="rsa")
        self.make("alice", "client-ca", subject="/CN=alice", san="email:alice@example.org,DNS:alice.example.org")
        self.make("mallory", "stranger-ca", subject="/CN=mallory", san="DNS:mallory.example.org")

    def pem(self, name):
        return self.folder / f"{name}.pem"

    def key(self, name):
        return self.folder / f"{name}.key"

    def make(self, name, authority, kind="ec", subject="/CN=localhost", san="DNS:localhost,IP:127.0.0.1", days=5,
             number=None):
        request, extra = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extra.write_text(f"subjectAltName={san}\n")
        openssl("req", *KEYS[kind], "-nodes", "-subj", subject, "-keyout", self.key(name), "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.pem(authority), "-CAkey", self.key(authority), "-days", days,
                *(["-set_serial", number] if number else ["-CAcreateserial"]), "-extfile", extra, "-out", self.pem(name))

    def settings(self, *names, **more):
        """Of a node with these certificates (both kinds by default)."""
        names = names or ("ec", "rsa")
        return {"tls.cert_file": ",".join(str(self.pem(name)) for name in names),
                "tls.key_file": ",".join(str(self.key(name)) for name in names),
                **{"tls." + key: value for key, value in more.items()}}

    def client(self, name=None, version=None, ciphers=None, alpn=None):
        """What a client knows: whom to believe, and its own certificate."""
        context = ssl.create_default_context(cafile=self.pem("server-ca"))
        if name:
            context.load_cert_chain(self.pem(name), self.key(name))
        if version:
            context.minimum_version = context.maximum_version = version
        if ciphers:
            context.set_ciphers(ciphers)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

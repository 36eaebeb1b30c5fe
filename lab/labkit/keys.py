# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys for the peer link of one lab: each lab has its own, which nobody else knows."""
import os
import secrets
import subprocess

from .errors import LabError

KINDS = ("psk", "x509", "off")
USER = "colo"


def _write(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _certtool(*words):
    result = subprocess.run(["certtool", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            check=False)
    if result.returncode:
        raise LabError(f"certtool: {result.stdout.strip()}")


def certificates(path, hosts, owner="lab"):
    """A CA, and one certificate of @owner's for each end that is good for all @hosts, which share the directory."""
    def file(name):
        return os.path.join(path, name)

    _write(file("ca.template"), "cn = lab\nca\ncert_signing_key\nexpiration_days = 365\n")
    _certtool("--generate-privkey", "--ecc", "--outfile", file("ca-key.pem"))
    _certtool("--generate-self-signed", "--load-privkey", file("ca-key.pem"), "--template", file("ca.template"),
              "--outfile", file("ca-cert.pem"))
    names = "".join(f"{'ip_address' if host[0].isdigit() else 'dns_name'} = {host}\n" for host in hosts)
    for end in "server", "client":
        uses = "tls_www_client\n" + "tls_www_server\n" * (end == "server")   # etcd's gateway is a client of etcd
        _write(file("template"), f"cn = {owner}\n{names}signing_key\n{uses}expiration_days = 365\n")
        _certtool("--generate-privkey", "--ecc", "--outfile", file(f"{end}-key.pem"))
        os.chmod(file(f"{end}-key.pem"), 0o600)
        _certtool("--generate-certificate", "--load-privkey", file(f"{end}-key.pem"), "--load-ca-certificate",
                  file("ca-cert.pem"), "--load-ca-privkey", file("ca-key.pem"), "--template", file("template"),
                  "--outfile", file(f"{end}-cert.pem"))


def make(path, kind, hosts):
    """Makes the directory @path with keys of @kind; returns the configuration's section [tls]."""
    if kind == "off":
        return {"mode": "off"}
    os.makedirs(path, mode=0o700, exist_ok=True)
    if kind == "x509":
        certificates(path, hosts)
    else:
        _write(os.path.join(path, "keys.psk"), f"{USER}:{secrets.token_hex(32)}\n")
    return {"mode": kind, "dir": path, "username": USER}

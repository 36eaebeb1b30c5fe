#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab and the test guest, unprotected: every service, power loss, and nothing left behind."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
LAB = os.path.join(ROOT, "lab", "lab")
NAME = f"t{os.getpid()}"
TOOLS = ["qemu-system-x86_64", "mmdebstrap", "curl", "psql", "ssh", "ip"]
BOOT_LIMIT = 20     # seconds of CPU until all services answer; on an idle machine also of time
BUSY_LIMIT = 120    # what this test waits, since other tests may run beside it


def lab(*args, timeout=60, check=True, **options):
    """Run lab/lab on the lab of this test."""
    done = subprocess.run([LAB, args[0], "--name", NAME, *args[1:]], capture_output=True, text=True,
                          timeout=timeout, check=False, **options)
    if check and done.returncode:
        raise AssertionError(f"lab {' '.join(args)}: {done.stderr}")
    return done.stdout


def client(*command, **options):
    """Run a command on the client."""
    return lab("exec", "client", "--", *command, **options)


def cpu_seconds(pid):
    """CPU time that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def talk(port, ip, text):
    """Send lines to a port of the guest, return what comes back until it says ok or echoes all."""
    script = ("import socket,sys; s=socket.create_connection((sys.argv[1],int(sys.argv[2])),10)\n"
              "t=sys.argv[3].encode(); s.sendall(t); s.shutdown(1); f=s.makefile('rb')\n"
              "print(f.read().decode())")
    return client("/usr/bin/python3", "-c", script, ip, str(port), text)


def leftovers():
    """Whatever of this lab is still there."""
    found = [path for path in (f"/run/colo-lab/{NAME}", f"/var/tmp/colo-lab/{NAME}",
                               f"/sys/fs/cgroup/colo-lab/{NAME}",
                               f"/sys/fs/cgroup/unified/colo-lab/{NAME}") if os.path.exists(path)]
    spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    found += [line for line in spaces.splitlines() if f"colo-{NAME}-" in line]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if f"COLO_LAB_HOST={NAME}/".encode() in file.read():
                    found.append(f"process {pid}")
        except OSError:
            continue
    with open("/proc/mounts", encoding="utf-8") as mounts:
        found += [line for line in mounts if f"colo-{NAME}-" in line or f"colo-lab/{NAME}" in line]
    return found


class Native(unittest.TestCase):
    """One guest on host a, in one boot; the tests run in the order of their names."""

    @classmethod
    def setUpClass(cls):
        lab("up", "--mode", "native", "--timeout", str(BUSY_LIMIT), timeout=BUSY_LIMIT + 160)
        cls.boot_seconds = cpu_seconds(json.loads(lab("status", "--json"))["a"]["pid"])
        cls.ip = lab("ip").strip()

    @classmethod
    def tearDownClass(cls):
        lab("down")

    def test_0_serves_soon(self):
        self.assertLess(self.boot_seconds, BOOT_LIMIT)

    def test_1_web(self):
        self.assertEqual(len(client("curl", "-sf", f"http://{self.ip}/1k")), 1024)
        script = f"curl -sf http://{self.ip}/10m.bin | sha256sum | cut -d' ' -f1"
        want = client("curl", "-sf", f"http://{self.ip}/10m.bin.sha256").split()[0]
        self.assertEqual(client("sh", "-c", script).strip(), want)
        self.assertIn("Active connections", client("curl", "-sf", f"http://{self.ip}/status"))

    def test_1_database(self):
        def sql(text):
            return client("psql", "-X", "-h", self.ip, "-U", "postgres", "-Atc", text, "bench").strip()
        self.assertEqual(sql("insert into ledger(token) values('x') returning id").split()[0], "1")
        self.assertEqual(sql("show data_checksums"), "on")
        self.assertEqual(sql("show fsync"), "on")
        self.assertEqual(sql("select count(*) from pgbench_branches"), "10")
        self.assertEqual(sql("select count(bt_index_check(indexrelid)) > 0 from pg_index"), "t")

    def test_1_echo(self):
        self.assertEqual(talk(7, self.ip, "one\ntwo\n"), "one\ntwo\n\n")

    def test_1_ipv6(self):
        ip6 = lab("ip", "-6").strip()
        self.assertEqual(len(client("curl", "-sf", f"http://[{ip6}]/1k")), 1024)
        self.assertEqual(talk(7, ip6, "six\n"), "six\n\n")

    def test_1_tls_and_random_answers(self):
        url = f"https://{self.ip}/cookie"
        answers = {client("curl", "-sfki", url).split("session=")[1] for _ in range(3)}
        self.assertEqual(len(answers), 3)

    def test_1_names(self):
        script = ("import socket,sys; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5)\n"
                  "q=b'\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\x08host-300\\4colo\\4test\\0\\0\\1\\0\\1'\n"
                  "s.sendto(q,(sys.argv[1],53)); print(socket.inet_ntoa(s.recv(512)[-4:]))")
        self.assertEqual(client("/usr/bin/python3", "-c", script, self.ip).strip(), "10.53.1.44")

    def test_1_work_checks_itself(self):
        orders = "start mem 8 64 1\nstart code\nstart file 64 20\nstart foo\nstart mem x\n"
        answer = talk(7007, self.ip, orders)
        self.assertEqual(answer.split("\n")[:3], ["ok", "ok", "ok"])
        self.assertEqual(answer.count("error: "), 2)
        deadline = time.monotonic() + 30
        done = {}
        while time.monotonic() < deadline and (len(done) < 3 or min(done.values()) < 5):
            lines = [line.split() for line in talk(7007, self.ip, "status\n").splitlines()]
            done = {words[0]: int(words[2]) for words in lines if len(words) == 5}
            self.assertTrue(all(words[4] == "0" for words in lines if len(words) == 5), lines)
        self.assertEqual(sorted(done), ["code", "file", "mem"])
        self.assertGreaterEqual(min(done.values()), 5)
        log = talk(7007, self.ip, "stop\nlog\n")
        self.assertIn("mem stopped", log)
        self.assertNotIn("CORRUPT", log)

    def test_1_ssh_and_boot(self):
        self.assertEqual(lab("ssh", "systemctl", "--failed", "--no-legend").strip(), "")
        clock = lab("ssh", "cat", "/sys/devices/system/clocksource/clocksource0/current_clocksource")
        self.assertEqual(clock.strip(), "tsc")

    def test_1_status_and_exec(self):
        status = json.loads(lab("status", "--json"))
        self.assertEqual(status["a"]["state"], "running")
        self.assertIsNone(status["b"])
        self.assertEqual(status["ip"], [self.ip])
        done = subprocess.run([LAB, "exec", "--name", NAME, "a", "--", "sh", "-c", "exit 7"],
                              check=False, timeout=20)
        self.assertEqual(done.returncode, 7)

    def test_1_second_up_is_refused(self):
        done = subprocess.run([LAB, "up", "--name", NAME, "--mode", "native"], capture_output=True,
                              text=True, check=False, timeout=20)
        self.assertEqual(done.returncode, 1)
        self.assertIn("already up", done.stderr)
        self.assertEqual(json.loads(lab("status", "--json"))["a"]["state"], "running")

    def reachable(self):
        """Does the guest answer a ping?"""
        return "1 received" in client("ping", "-c1", "-W1", self.ip, check=False)

    def test_2_cut_and_heal(self):
        self.assertTrue(self.reachable())
        lab("cut", "lan-a")
        self.assertFalse(self.reachable())
        lab("heal", "lan-a")
        self.assertTrue(self.reachable())

    def test_3_power_loss_is_silent(self):
        script = ("import socket,sys,time; s=socket.create_connection((sys.argv[1],7),10)\n"
                  "s.sendall(b'x'); s.recv(1); print('open',flush=True); s.settimeout(4)\n"
                  "try: print('told: %r' % s.recv(1))\n"
                  "except socket.timeout: print('silence')\n"
                  "except OSError as e: print('told: %s' % e)\n")
        with subprocess.Popen([LAB, "exec", "--name", NAME, "client", "--", "/usr/bin/python3", "-c",
                               script, self.ip], stdout=subprocess.PIPE, text=True) as child:
            self.assertEqual(child.stdout.readline(), "open\n")
            lab("kill", "a")
            self.assertEqual(child.stdout.readline(), "silence\n")
        status = json.loads(lab("status", "--json"))
        self.assertIsNone(status["a"])
        self.assertEqual(status["killed"], ["a"])

    def test_4_start_again(self):
        lab("start", "a")
        lab("wait", "--state", "serving", "--timeout", str(BUSY_LIMIT), timeout=BUSY_LIMIT + 20)
        lab("kill-vm", "a")
        deadline = time.monotonic() + 5
        while json.loads(lab("status", "--json"))["a"] and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertIsNone(json.loads(lab("status", "--json"))["a"])

    def test_5_down_leaves_nothing(self):
        with subprocess.Popen([LAB, "exec", "--name", NAME, "client", "--", "sleep", "1000"]) as child:
            time.sleep(0.3)
            lab("down")
            self.assertEqual(child.wait(timeout=5), -signal.SIGKILL)
        self.assertEqual(leftovers(), [])

    def test_6_interrupted_up_leaves_nothing(self):
        with subprocess.Popen([LAB, "up", "--name", NAME, "--mode", "native"], text=True,
                              stderr=subprocess.PIPE) as child:
            for line in child.stderr:
                if "booting" in line:
                    break
            child.send_signal(signal.SIGKILL)
        self.assertNotEqual(leftovers(), [])
        lab("down")
        self.assertEqual(leftovers(), [])


if __name__ == "__main__":
    if os.geteuid() != 0 or not all(map(shutil.which, TOOLS)):
        print("needs root and", ", ".join(TOOLS))
        sys.exit(77)
    unittest.main()

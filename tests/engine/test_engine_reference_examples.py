"""The examples of the docker CLI's reference pages (run, exec, logs, cp, events, stats, inspect), each as it stands there.

busybox stands in for every image; the paths and ports of the host are the test's own. A row is a shell command, what it prints (a regular
expression, searched) and its exit status. `-it` examples get a terminal of script(1), and type what the row's third field says.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from engine_harness import busybox_tar

IMAGES = {
    "nginx:alpine": ('CMD ["sleep", "1000"]', "EXPOSE 80"),
    "redis": ('CMD ["sleep", "1000"]', "EXPOSE 6379", "VOLUME /data"),
    "mybuilder": ('CMD ["sh"]',),
    "curlimages/curl": ('ENTRYPOINT ["wget", "-O", "-"]',),
}
STAND_INS = ("alpine", "ubuntu", "debian", "fedora", "my_image", "my-image", "someimage")


class Row(NamedTuple):
    command: str
    shown: str = ""
    code: int = 0
    typed: str | None = None


ID = r"\A[0-9a-f]{64}\n\Z"
RUN = (
    Row("docker run --name test -d nginx:alpine", ID),
    Row("docker ps", r'nginx:alpine +"sleep 1000" +\S.* ago +Up .* +80/tcp +test\n'),
    Row("docker stop -t 0 test", r"\Atest\n\Z"),
    Row("docker rm test", r"\Atest\n\Z"),
    Row("docker network create mynet", ID),
    Row("docker run --name test --net mynet -d nginx:alpine", ID),
    Row("docker run --net mynet busybox:latest ping -c 1 test", r"(?s)PING test \(172\..*64 bytes from 172\..*: seq=0 ttl=64 time="),
    Row("docker rm -f test && docker network rm mynet", r"\Atest\nmynet\n\Z"),
    Row("docker run --cidfile $D/docker_test.cid ubuntu echo test && wc -c < $D/docker_test.cid", r"\Atest\n64\n\Z"),
    Row("docker run --cidfile $D/docker_test.cid ubuntu echo test", r"container ID file found", 125),
    Row("docker run --rm -it --pid=host alpine", r"atoll-keeper", typed="ps; exit\n"),
    Row("docker run --rm --name my-nginx -d nginx:alpine", ID),
    Row(
        "docker run --rm -it --pid=container:my-nginx --cap-add SYS_PTRACE --security-opt seccomp=unconfined alpine",
        r"1 root +sleep 1000",
        typed="ps; readlink /proc/1/exe; exit\n",
    ),
    Row("docker stop -t 0 my-nginx", r"\Amy-nginx\n\Z"),
    Row("docker run --userns=host hello-world", "Hello from"),
    Row("docker run --rm --uts=host --hostname x busybox true", "conflicting options: hostname and the UTS mode", 125),
    Row("docker run --rm --ipc=none busybox sh -c 'mount | grep -c /dev/shm'", r"\A0\n\Z", 1),
    Row("docker run -t -i --rm ubuntu sh", "mount: permission denied", 1, typed="mkdir -p /mnt; mount -t tmpfs none /mnt; exit 1\n"),
    Row("docker run -t -i --privileged ubuntu sh", r"none +.* 0% /mnt", typed="mkdir -p /mnt; mount -t tmpfs none /mnt; df -h; exit\n"),
    Row("docker run -w /path/to/dir/ ubuntu pwd", r"\A/path/to/dir\n\Z"),
    Row("docker run -it --storage-opt size=120G fedora /bin/bash", "--storage-opt is supported only for overlay over xfs", 125),
    Row(
        "docker run --rm --tmpfs /run:rw,noexec,nosuid,size=65536k my_image grep ' /run ' /proc/mounts",
        r"\Atmpfs /run tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k",
    ),
    Row("docker run -v $(pwd):$(pwd) -w $(pwd) -i -t ubuntu pwd", r"\A$D\r\n\Z"),
    Row("docker run -v ./content:/content -w /content -i -t ubuntu pwd && test -e content", r"\A/content\r\n\Z"),
    Row("docker run -v $D/doesnt/exist:/foo -w /foo -i -t ubuntu pwd && test -e doesnt/exist", r"\A/foo\r\n\Z"),
    Row("docker run --read-only -v /icanwrite busybox touch /icanwrite/here", r"\A\Z"),
    Row("docker run --read-only busybox touch /here", "touch: /here: Read-only file system", 1),
    Row(
        "docker run -t -i -v $S:/var/run/docker.sock -v $(which docker):/usr/bin/docker busybox sh",
        "no such file|not found|Server:",
        1,
        typed="docker version; ls -l /var/run/docker.sock; exit 1\n",
    ),
    Row("docker run --read-only --mount type=volume,target=/icanwrite busybox touch /icanwrite/here", r"\A\Z"),
    Row("docker run -t -i --mount type=bind,src=$D,dst=/data busybox sh", "docker_test.cid", typed="ls /data; exit\n"),
    Row("docker run -t -i --mount type=bind,src=$D/none,dst=/data busybox sh", "bind source path does not exist", 125),
    Row("docker run -d --name pp -p 127.0.0.1:$P:8080/tcp nginx:alpine && docker port pp", r"\n8080/tcp -> 127.0.0.1:$P\n\Z"),
    Row("docker run -d --name ee --expose 81 nginx:alpine && docker ps -f name=ee --format '{{.Ports}}'", r"\n80-81/tcp\n\Z"),
    Row("docker run -d --name all -P nginx:alpine && docker port all", r"\n80/tcp -> 0\.0\.0\.0:\d+\n80/tcp -> \[::\]:\d+\n\Z"),
    Row("docker run --pull=never nosuch", r"docker: Error response from daemon: No such image: nosuch:latest", 125),
    Row(
        "MYVAR1=x docker run -e MYVAR1 --env MYVAR2=foo --env-file ./env.list ubuntu env | grep VAR | sort",
        r"MYVAR1=x\nMYVAR2=foo\nVAR1=value1\nVAR2=value2\n",
    ),
    Row("docker run --env VAR1=value1 --env VAR2=value2 ubuntu env | grep VAR | sort", r"\AVAR1=value1\nVAR2=value2\n\Z"),
    Row("export VAR1=value1 VAR2=value2; docker run --env VAR1 --env VAR2 ubuntu env | grep VAR | sort", r"\AVAR1=value1\nVAR2=value2\n\Z"),
    Row(
        "USER=jonzeolla docker run --env-file env.list ubuntu env | grep -E 'VAR|USER'",
        r"\AVAR1=value1\nVAR2=value2\nUSER=jonzeolla\n\Z",
    ),
    Row("docker run --name l1 -l my-label --label com.example.foo=bar ubuntu true"),
    Row("docker inspect -f '{{json .Config.Labels}}' l1", r'\A{"com.example.foo":"bar","my-label":""}\n\Z'),
    Row("docker run --name l2 --label-file ./labels ubuntu true"),
    Row(
        "docker inspect -f '{{json .Config.Labels}}' l2",
        r'\A{"com.example.label1":"\\"a label\\"","com.example.label2":"another\\\\ label"}\n\Z',
    ),
    Row("docker network create my-net && docker run -itd --name nn --network=my-net busybox", ID.replace(r"\n\Z", r"\n[0-9a-f]{64}\n\Z")),
    Row("docker rm -f nn && docker network rm my-net"),
    Row("docker network create --subnet 192.0.2.0/24 my-net", ID),
    Row("docker run -itd --name nn --network=my-net --ip=192.0.2.69 busybox", ID),
    Row("docker inspect -f '{{(index .NetworkSettings.Networks \"my-net\").IPAddress}}' nn", r"\A192.0.2.69\n\Z"),
    Row("docker rm -f nn && docker network rm my-net"),
    Row("docker network create --subnet 192.0.2.0/24 my-net1 && docker network create --subnet 192.0.3.0/24 my-net2"),
    Row("docker run -itd --name nn --network=my-net1 --network=my-net2 busybox", ID),
    Row("docker inspect -f '{{range .NetworkSettings.Networks}}{{.Gateway}} {{end}}' nn", r"\A192.0.2.1 192.0.3.1 \n\Z"),
    Row("docker rm -f nn"),
    Row("docker run -itd --name nn --network=name=my-net1,ip=192.0.2.42 --network=name=my-net2,ip=192.0.3.42 busybox", ID),
    Row("docker exec nn ip -4 -o addr", r"(?s)eth0 +inet 192\.0\.2\.42/24.*eth1 +inet 192\.0\.3\.42/24"),
    Row("docker rm -f nn && docker network rm my-net1 my-net2"),
    Row("docker create --name v1 -v /one busybox && docker create --name v2 -v /two busybox"),
    Row("docker run --volumes-from v1 --volumes-from v2:ro -i -t ubuntu pwd", r"\A/\r\n\Z"),
    Row("docker run --volumes-from v1 --volumes-from v2:ro ubuntu touch /one/x /two/x", "touch: /two/x: Read-only", 1),
    Row("docker run --rm --device=/dev/zero:/dev/foobar -it ubuntu ls -l /dev/foobar", r"\Acrw-rw-rw- +1 root +root +1, +5 .* /dev/foobar"),
    Row(
        "docker run --rm --device=/dev/nosuch ubuntu true",
        'error gathering device information while adding custom device "/dev/nosuch"',
        125,
    ),
    Row("docker run --rm --device=/dev/kmsg:/dev/foobar:r ubuntu sh -c 'echo >/dev/foobar'", "Operation not permitted", 1),
    Row("docker run --device=vendor.com/class=device-name --rm -it ubuntu", "unresolvable CDI devices vendor.com/class=device-name", 125),
    Row("docker run -a stdin -a stdout -i -t ubuntu /bin/sh", "seen", typed="echo se''en; exit\n"),
    Row("echo test | docker run -i -a stdin ubuntu cat -", r"\A([0-9a-f]{64}\n)?\Z"),
    Row("docker run -a stderr ubuntu echo test", r"\A\Z"),
    Row("cat env.list | docker run -i -a stdin --name built mybuilder cat && docker logs built", "VAR2=value2"),
    Row("echo hello | docker run --rm -i busybox cat", r"\Ahello\n\Z"),
    Row("docker run -it debian", r"90: 2 3 3 5", typed="factor 90\nexit\n"),
    Row(
        """docker run --rm -i busybox echo "foo bar baz" | docker run --rm -i busybox awk '{print $2}' | docker run --rm -i busybox rev""",
        r"\Arab\n\Z",
    ),
    Row("docker run -i debian passwd root", "password for root changed", typed="x1!xxYYzz\nx1!xxYYzz\n"),
    Row("docker run -d --device-cgroup-rule='c 42:* rmw' --name my-container my-image sleep 1000", ID),
    Row("docker exec my-container mknod newDevX c 42 7"),
    Row("docker run -it --rm --gpus all ubuntu nvidia-smi", "could not select device driver|--gpus|CDI", 125),
    Row("""docker run -it --rm --gpus '"device=0,2"' ubuntu nvidia-smi""", "could not select device driver|--gpus|CDI", 125),
    Row("docker run -d --name rr --restart=on-failure:10 redis && docker inspect -f '{{ .RestartCount }}' rr", r"\n0\n\Z"),
    Row("docker inspect -f '{{ .State.StartedAt }}' rr", r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z\n\Z"),
    Row("docker run --rm --restart=always redis", "conflicting options: cannot specify both --restart and --rm", 125),
    Row("docker run --rm -v /foo -v awesome:/bar busybox true && docker volume ls -q", r"(?m)^awesome$"),
    Row("docker run --add-host=my-hostname=8.8.8.8 --rm -it alpine", "8.8.8.8\tmy-hostname", typed="cat /etc/hosts; exit\n"),
    Row("docker run --add-host my-hostname=[2001:db8::33] --rm alpine cat /etc/hosts", "2001:db8::33\tmy-hostname"),
    Row("docker run --add-host my-hostname:8.8.8.8 --rm alpine cat /etc/hosts", "8.8.8.8\tmy-hostname"),
    Row(
        r"(printf 'HTTP/1.1 200 OK\r\n\r\nhello from host!\n' | busybox nc -l -p $P2) & "
        "docker run --add-host host.docker.internal=host-gateway curlimages/curl -q host.docker.internal:$P2",
        "hello from host!",
    ),
    Row("docker run --name quiet --log-driver=none -d nginx:alpine", ID),
    Row("docker logs quiet", "Error response from daemon: configured logging driver does not support reading", 1),
    Row("docker run --ulimit nofile=1024:1024 --rm debian sh -c 'ulimit -n'", r"\A1024\n\Z"),
    Row("docker run -d -u user --ulimit nproc=3 busybox top", ID),
    Row("docker run --rm --stop-signal SIGKILL busybox true"),
    Row("docker run --rm --stop-timeout -1 busybox true"),
    Row("docker run --security-opt label=level:s0:c100,c200 -it fedora sh", typed="exit\n"),
    Row("docker run --security-opt label=disable -it ubuntu sh", typed="exit\n"),
    Row("docker run --security-opt label=type:svirt_apache_t -it ubuntu sh", typed="exit\n"),
    Row("docker run --security-opt no-new-privileges -it ubuntu grep NoNewPrivs /proc/self/status", r"NoNewPrivs:\t1"),
    Row("docker run --rm --security-opt no-new-privileges=true --security-opt seccomp=builtin ubuntu grep Seccomp: /proc/self/status", "2"),
    Row("docker run --rm --security-opt systempaths=unconfined ubuntu sh -c 'mount | grep -c /proc/'", r"\A0\n\Z", 1),
    Row("docker run -d --isolation default busybox top", ID),
    Row("docker run --rm --sysctl net.ipv4.ip_forward=1 someimage cat /proc/sys/net/ipv4/ip_forward", r"\A1\n\Z"),
    Row("docker run --rm --network=host --sysctl net.ipv4.ip_forward=1 someimage true", "not allowed|host", 125),
    Row("docker run --rm --ipc=host --sysctl kernel.shmmax=1 someimage true", "not allowed|host", 125),
    Row("docker run --rm -m 64m busybox cat /sys/fs/cgroup/memory/memory.limit_in_bytes", r"\A67108864\n\Z"),
)
EXEC = (
    Row("docker run --name mycontainer -d -i -t alpine /bin/sh", ID),
    Row("docker exec -d mycontainer touch /tmp/execWorks", r"\A\Z"),
    Row("docker exec -it mycontainer sh", "execWorks", typed="ls /tmp; exit\n"),
    Row('docker exec -it mycontainer sh -c "echo a && echo b"', r"\Aa\r\nb\r\n\Z"),
    Row('docker exec -it mycontainer "echo a && echo b"', 'exec: "echo a && echo b": executable file not found in \\$PATH', 127),
    Row(
        "docker exec -e VAR_A=1 -e VAR_B=2 mycontainer env",
        r"\APATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOSTNAME=[0-9a-f]{12}\n(\S+=/dev/.atoll/ca-certificates.crt\n)*VAR_A=1\nVAR_B=2\nHOME=/root\n\Z",
    ),
    Row("docker exec -it mycontainer pwd", r"\A/\r\n\Z"),
    Row("docker exec -it -w /root mycontainer pwd", r"\A/root\r\n\Z"),
    Row("docker pause mycontainer", r"\Amycontainer\n\Z"),
    Row("docker ps", r'alpine +"/bin/sh" .* Up .* \(Paused\) +mycontainer\n'),
    Row("docker exec mycontainer sh", "Error response from daemon: Container .* is paused, unpause the container before exec", 1),
    Row("docker unpause mycontainer", r"\Amycontainer\n\Z"),
)
LOGS = (
    Row('docker run --name test -d busybox sh -c "while true; do date; sleep 0.2; done"', ID),
    Row("timeout 5 docker logs -f --until=-1s test", r"\d\d:\d\d:\d\d"),
    Row("docker logs --tail=-1 test", r"\d\d:\d\d:\d\d"),
    Row("docker logs --tail=some test", r"\d\d:\d\d:\d\d"),
    Row("docker logs --since 2006-01-02T15:04:05.999999999 -n 1 test", r"\A[^\n]*\d\d:\d\d:\d\d[^\n]*\n\Z"),
    Row("docker logs --since 2006-01-02T07:00 --until 2006-01-02 test", r"\A\Z"),
    Row("docker logs --since 1136073600.5 -t -n 1 test", r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z "),
)
CP = (
    Row("docker run -d --name CONTAINER busybox sh -c 'mkdir -p /work /var/logs; echo ERROR 1 > /var/logs/app.log; exec sleep 1000'", ID),
    Row("until docker exec CONTAINER test -s /var/logs/app.log; do :; done"),
    Row("docker cp ./env.list CONTAINER:/work && docker exec CONTAINER head -n 1 /work/env.list", r"# This is a comment\n\Z"),
    Row("docker cp CONTAINER:/var/logs/ $D/app_logs && cat $D/app_logs/app.log", r"ERROR 1\n\Z"),
    Row("docker cp CONTAINER:/var/logs/app.log - | tar x -O | grep ERROR", r"\AERROR 1\n\Z"),
    Row("mkdir there; docker exec CONTAINER tar cf - -C / work | tar Cxf there - && ls there/work", r"\Aenv.list\n\Z"),
    Row("tar Ccf . - there | docker exec -i CONTAINER tar xf - -C /tmp && docker exec CONTAINER ls /tmp/there/work", r"\Aenv.list\n\Z"),
    Row("tar cf - labels | docker cp - CONTAINER:/tmp && docker exec CONTAINER test -s /tmp/labels"),
    Row("docker cp ./env.list CONTAINER:/nosuch/", "no such directory|not a directory|Could not find the file", 1),
    Row("docker cp ./there CONTAINER:/work/env.list", "cannot copy directory", 1),
    Row("docker cp ./there/. CONTAINER:/fresh && docker exec CONTAINER ls /fresh", r"\Awork\n\Z"),
)
EVENTS = (
    Row("docker create --name test alpine:latest top", ID),
    Row("docker start test && docker stop -t 0 test", r"\Atest\ntest\n\Z"),
    Row(
        "docker events --since $T --until $(date +%s.%N)",
        r"(?s)\A\S+ container create [0-9a-f]{64} \(image=alpine:latest, name=test\)\n"
        r"\S+ network connect [0-9a-f]{64} \(container=[0-9a-f]{64}, name=bridge, type=bridge\)\n"
        r"\S+ container start [0-9a-f]{64} \(image=alpine:latest, name=test\)\n"
        r".*\S+ network disconnect [0-9a-f]{64} \(container=[0-9a-f]{64}, name=bridge, type=bridge\)\n"  # since 2018 before `die`
        r"\S+ container die [0-9a-f]{64} \(execDuration=\d+, exitCode=\d+, image=alpine:latest, name=test\)\n"
        r"\S+ container stop [0-9a-f]{64} \(image=alpine:latest, name=test\)\n\Z",
    ),
    Row(
        "docker events --since 2017-01-05 --until $(date +%s.%N) -f event=stop -f container=test",
        r"container stop [0-9a-f]{64} \(image=alpine:latest, name=test\)\n\Z",
    ),
    Row("docker events --since 2013-09-03T15:49:29 --until 2017-01-05T00:36:05", r"\A\Z"),
    Row(
        "docker events --since 10m --until $(date +%s.%N) --filter image=alpine:latest -f container=test --format '{{.Action}}'",
        r"create\nstart\n(?s:.*)stop\n\Z",
    ),
    Row(
        "docker events --since $T --until $(date +%s.%N) --filter container=test --filter event=stop --format '{{.Type}}'",
        r"\Acontainer\n\Z",
    ),
    Row("docker events --since $T --until $(date +%s.%N) --filter type=network --format '{{.Action}}'", r"\Aconnect\ndisconnect\n\Z"),
    Row("docker run --rm -v test-event-volume-local:/foo busybox true && docker volume rm test-event-volume-local"),
    Row(
        "docker events --since $T --until $(date +%s.%N) --filter type=volume",
        r"\A\S+ volume create test-event-volume-local \(driver=local\)\n"
        r"\S+ volume mount test-event-volume-local "
        r"\(container=[0-9a-f]{64}, destination=/foo, driver=local, propagation=, read/write=true\)\n"
        r"\S+ volume unmount test-event-volume-local \(container=[0-9a-f]{64}, driver=local\)\n"
        r"\S+ volume destroy test-event-volume-local \(driver=local\)\n\Z",
    ),
    *(
        Row(f"docker events --since 10m --until $(date +%s.%N) -f type={kind}", r"\A\Z")
        for kind in ("plugin", "service", "node", "secret", "config")
    ),
    Row("docker events --since 10m --until $(date +%s.%N) --filter scope=swarm", r"\A\Z"),
    Row(
        "docker events --since $T --until $(date +%s.%N) -f container=test --format 'Type={{.Type}}  Status={{.Status}}  ID={{.ID}}'",
        r"\AType=container  Status=create  ID=[0-9a-f]{64}\n",
    ),
    Row(
        "docker events --since $T --until $(date +%s.%N) -f container=test --format '{{json .}}'",
        r'\A{"status":"create","id":"[0-9a-f]{64}","from":',
    ),
)
STATS = (
    Row("docker run -d --name nginx nginx:alpine && docker create --name stopped nginx:alpine"),
    Row(
        "docker stats --no-stream",
        r"\ACONTAINER ID +NAME +CPU % +MEM USAGE / LIMIT +MEM % +NET I/O +BLOCK I/O +PIDS *\n[0-9a-f]{12} +nginx ",
    ),
    Row("docker stats --no-stream nginx $(docker ps -q)", r"(?s)nginx .*nginx "),
    Row(
        'docker stats nginx --no-stream --format "{{ json . }}"',
        r'\A{"BlockIO":"\S+ / \S+","CPUPerc":"[\d.]+%","Container":"nginx","ID":"[0-9a-f]{12}","MemPerc":"[\d.]+%",'
        r'"MemUsage":"\S+ / \S+","Name":"nginx","NetIO":"\S+ / \S+","PIDs":"1"}\n\Z',
    ),
    Row(
        'docker stats --no-stream --all --format "table {{.Container}}\\t{{.CPUPerc}}\\t{{.MemUsage}}" nginx stopped',
        r"\ACONTAINER +CPU % +MEM USAGE / LIMIT\nnginx +[\d.]+% +\S+ / \S+\nstopped +0.00% +0B / 0B\n\Z",
    ),
    Row('docker stats --no-stream --format "{{.Container}}: {{.CPUPerc}}"', r"\A[0-9a-f]{12}: [\d.]+%\n\Z"),
)
INSPECT = (
    Row("docker volume create myvolume && docker inspect --type=volume myvolume", r'"Name": "myvolume"'),
    Row("docker run --name database -d -p 127.0.0.1:$P:8787 my_image sleep 1000", ID),
    Row("docker inspect --size database -f '{{ .SizeRootFs }}'", r"\A[1-9]\d{5,}\n\Z"),
    Row("docker inspect --size database -f '{{ .SizeRw }}'", r"\A\d+\n\Z"),
    Row("docker exec database fallocate -l 1000 /newfile && docker inspect --size database -f '{{ .SizeRw }}'", r"\A[1-9]\d+\n\Z"),
    Row("docker inspect --format='{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' database", r"\A172\.\d+\.\d+\.\d+\n\Z"),
    Row(
        "docker inspect --format='{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}' database",
        r"\A([0-9a-f]{2}:){5}[0-9a-f]{2}\n\Z",
    ),
    Row("docker inspect --format='{{.LogPath}}' database", r"\A/\S+\n\Z"),
    Row("docker inspect --format='{{.Config.Image}}' database", r"\Amy_image\n\Z"),
    Row(
        "docker inspect --format='{{range $p, $conf := .NetworkSettings.Ports}} {{$p}} -> {{(index $conf 0).HostPort}} {{end}}' database",
        "8787/tcp -> $P",
    ),
    Row("""docker inspect --format='{{(index (index .NetworkSettings.Ports "8787/tcp") 0).HostPort}}' database""", r"\A$P\n\Z"),
    Row("docker inspect --format='{{json .Config}}' database", r'\A{"Hostname":"[0-9a-f]{12}"'),
    Row("docker inspect nosuch", r"(?s)\A\[\]\n.*Error: No such object: nosuch", 1),
)
PAGES = {"run": RUN, "exec": EXEC, "logs": LOGS, "cp": CP, "events": EVENTS, "stats": STATS, "inspect": INSPECT}


@pytest.fixture(scope="module")
def stocked(engine):
    """The images' stand-ins."""
    tar = busybox_tar()
    for name, changes in IMAGES.items():
        engine.docker("import", *(word for change in changes for word in ("-c", change)), "-", name, input=tar)
    for name in STAND_INS:
        engine.docker("tag", "busybox", name)
    return engine


@pytest.fixture
def free_ports():
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        return [str(one.getsockname()[1]) for one in held]


@pytest.mark.parametrize("page", PAGES)
def test_page(stocked, tmp_path, page, free_ports):
    (tmp_path / "env.list").write_text("# This is a comment\nVAR1=value1\nVAR2=value2\nUSER\n")
    (tmp_path / "labels").write_text(
        'com.example.label1="a label"\n\n# this is a comment\ncom.example.label2=another\\ label\ncom.example.label3\n'
    )
    begun = subprocess.run(["date", "+%s.%N"], capture_output=True, text=True, check=True).stdout.strip()
    words = {"D": str(tmp_path), "S": str(stocked.instance.engine_socket), "P2": free_ports[1], "P": free_ports[0], "T": begun}
    environ = {**stocked.environ, **words}
    rows = PAGES[page]
    with ThreadPoolExecutor(len(rows) if page == "stats" else 1) as pool:  # of stats each takes a second, to have seen two samples
        outcomes = [_outcome(rows[0], environ, tmp_path), *pool.map(lambda row: _outcome(row, environ, tmp_path), rows[1:])]
    wrong = []
    for row, (code, shown) in zip(rows, outcomes, strict=True):
        expected = re.sub(r"\$(P2|[DSP])\b", lambda match: re.escape(words[match[1]]), row.shown)
        if code != row.code or not re.search(expected, shown):
            wrong.append(f"{row.command}\n  exit {code}, wanted {row.code} and {expected!r}; shown:\n{shown}")
    assert not wrong, "\n\n".join(wrong)


def _outcome(row, environ, directory):
    command = row.command
    if re.search(r" (-it|-i -t|-t -i)\b", command) and " -d " not in command:
        command = f"script -qec {shlex.quote(command)} /dev/null"
    done = subprocess.run(
        ["sh", "-c", command],
        env=environ,
        cwd=directory,
        input=(row.typed or "").encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace").replace("^@", "")  # what script(1) types at the end of its input

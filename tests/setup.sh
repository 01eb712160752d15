#!/usr/bin/env bash
# Finds the real servers, runtimes and client libraries that the tests run against, or installs them (Debian, as root).
set -eu
missing=()
# Debian keeps it where only root looks.
PATH=$PATH:/usr/sbin
command -v redis-server >/dev/null 2>&1 || missing+=(redis-server)
command -v redis-cli >/dev/null 2>&1 || missing+=(redis-tools)
command -v nginx >/dev/null 2>&1 || missing+=(nginx-light)
if ! command -v initdb >/dev/null 2>&1 && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    missing+=(postgresql)
fi
command -v pgbouncer >/dev/null 2>&1 || missing+=(pgbouncer)
command -v c++ >/dev/null 2>&1 || missing+=(g++)
command -v node >/dev/null 2>&1 || missing+=(nodejs)
command -v npm >/dev/null 2>&1 || missing+=(npm)
python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || missing+=(python3-venv)
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing: ${missing[*]}; install them, or run this as root on Debian or Ubuntu" >&2
    exit 1
fi
# The packages must not start servers of their own, nor make a cluster.
policy=/usr/sbin/policy-rc.d
made=0
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=1
fi
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
fi
status=0
{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null; } || status=$?
[ $made -eq 1 ] && rm -f $policy
if [ $status -ne 0 ]; then
    echo "cannot install: ${missing[*]}" >&2
    exit 1
fi

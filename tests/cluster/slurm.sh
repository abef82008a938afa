#!/usr/bin/env bash
# A Slurm of one node on this machine, from Debian's packages. Its files are in a folder of its own, /etc is left alone.
#   slurm.sh start   install what is missing, start, wait until a job has run, print SLURM_CONF's value as the last line
#   slurm.sh stop    end what start has started
# Exit status 3: it can't be started here; the last line says why.
set -euo pipefail

folder=${STATPRUNE_SLURM_FOLDER:-/run/statprune-slurm}
export SLURM_CONF=$folder/slurm.conf

cannot() {
    echo "$1"
    exit 3
}

install_packages() {
    local missing=()
    for program in munged slurmctld slurmd sbatch srun; do
        PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || missing+=("$program")
    done
    if [ ${#missing[@]} = 0 ]; then return; fi
    command -v apt-get >/dev/null || cannot "Slurm is not installed (no ${missing[*]}), and there is no apt-get"
    # packages may start services of their own: ours have other folders, and those would take the ports
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap "rm -f $policy" EXIT
    fi
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge) \
        >"$folder/apt.log" 2>&1 || cannot "apt-get could not install slurm-wlm and munge: $(tail -n 1 "$folder/apt.log")"
}

start_daemons() {
    local host
    host=$(hostname -s)
    dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
    chmod 400 "$folder/munge.key"
    mkdir -p "$folder/state" "$folder/spool"
    # cred_expire: how long a job that is queued again must wait
    cat >"$SLURM_CONF" <<CONF
ClusterName=statprune
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
SchedulerParameters=batch_sched_delay=1,sched_interval=5
MinJobAge=300
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=${STATPRUNE_SLURM_PORT:-46817}
SlurmdPort=$((${STATPRUNE_SLURM_PORT:-46817} + 1))
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF"
}

start() {
    if [ -e "$SLURM_CONF" ]; then stop; fi
    [ "$(id -u)" = 0 ] || cannot "starting Slurm (and installing it, if missing) needs root"
    mkdir -p "$folder"
    install_packages
    start_daemons
    local told
    for _ in $(seq 30); do
        if told=$(cd / && timeout 30 srun --immediate=5 true 2>&1); then
            (cd "$folder" && timeout 60 sbatch -W --output=/dev/null --wrap true)
            echo "$SLURM_CONF"
            return
        fi
        sleep 1
    done
    echo "$told"
    tail -n 20 "$folder"/*.log
    stop
    exit 1
}

stop() {
    for daemon in slurmd slurmctld munged; do
        if [ -s "$folder/$daemon.pid" ]; then
            kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true
        fi
    done
    sleep 1
    rm -rf "$folder"
}

PATH=$PATH:/usr/sbin
case ${1:-} in
start) start ;;
stop) stop ;;
*) cannot "usage: slurm.sh start or stop" ;;
esac

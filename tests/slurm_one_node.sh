#!/usr/bin/env bash
# A Slurm of one node on the loopback, for tests: one controller, one node, no accounting.
#   slurm_one_node.sh start FOLDER   install what is missing (root, apt-get), start, print slurm.conf
#   slurm_one_node.sh stop FOLDER    end what was started
# Exit status 77 if Slurm cannot be installed here, or the machine belongs to a cluster already.
set -euo pipefail
action=$1
folder=$2
installed=/etc/slurm/slurm.conf

install() {
  command -v sbatch >/dev/null && command -v slurmctld >/dev/null && command -v munged >/dev/null &&
    return
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
    { echo "Slurm is not installed, and only root on Debian or Ubuntu can install it" >&2; exit 77; }
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
      --no-install-recommends slurm-wlm munge; } >"$folder/apt.log" 2>&1 ||
    { echo "apt-get could not install slurm-wlm and munge; see $folder/apt.log" >&2; exit 77; }
}

start() {
  mkdir -p "$folder"/{munge,state,spool,log}
  folder=$(cd "$folder" && pwd)
  install
  [ "$(id -u)" = 0 ] || { echo "the daemons of a test cluster need root" >&2; exit 77; }
  # Snakemake's executor drops SLURM_CONF, so that the file must lie where Slurm looks by itself.
  [ ! -e "$installed" ] ||
    { echo "$installed exists: this machine belongs to a cluster" >&2; exit 77; }
  # munge insists on folders that nobody else can write to.
  chmod 755 "$folder" "$folder/munge" && chmod 700 "$folder/log"
  head -c 1024 /dev/urandom >"$folder/munge/key" && chmod 400 "$folder/munge/key"
  munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munge/pid" --log-file="$folder/log/munged.log" \
    --seed-file="$folder/munge/seed"
  port=$((20000 + $$ % 20000))
  cat >"$folder/slurm.conf" <<CONF
ClusterName=eeglib
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
MinJobAge=300
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/state/slurmctld.pid
SlurmdPidFile=$folder/state/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1100)}' /proc/meminfo)
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
  mkdir -p "$(dirname "$installed")" && ln -s "$folder/slurm.conf" "$installed"
  slurmctld
  slurmd
  for _ in $(seq 60); do
    sinfo --noheader --format %t 2>/dev/null | grep -q idle && { echo "$folder/slurm.conf"; return; }
    sleep 1
  done
  echo "the node did not become idle; see $folder/log" >&2
  exit 1
}

stop() {
  for pid in "$folder"/state/slurmd.pid "$folder"/state/slurmctld.pid "$folder"/munge/pid; do
    [ -f "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
  done
  [ "$(readlink "$installed")" = "$(cd "$folder" && pwd)/slurm.conf" ] && rm "$installed"
}

"$action"

#!/usr/bin/env bash
# A Slurm on this machine, for tests: its own keys, folders and ports, nothing of the system's is touched.
#   slurm_up.sh start DIR [N [CPUS]]     starts munged, slurmctld and slurmd under DIR and waits until the node is idle;
#                                        then: . DIR/env. N: so many nodes n1, n2, ..., a slurmd for each
#   slurm_up.sh stop DIR                 ends what was started and removes DIR
# Nodes have 16 CPUs (CPUS: so many) and 8 GPUs that are not there, so that scripts which ask for some are accepted.
# Needs root and the packages slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge. Exit 77: they are not there,
# with a reason; 1: it did not start, with the last lines of its logs.
set -uo pipefail
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

action=${1:-} dir=${2:-} count=${3:-1} cpus=${4:-16}
case $action in start | stop) ;; *) dir='' ;; esac
if [ -z "$dir" ]; then
    sed -n '2,9s/^# //p' "$0"
    exit 2
fi

not_here() {
    echo "slurm_up: $1"
    exit 77
}
stop() {
    local name pid
    for name in $(cd "$dir" 2>/dev/null && ls slurmd*.pid 2>/dev/null) slurmctld.pid munged.pid; do
        pid=$(cat "$dir/$name" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.05
        done
        kill -KILL "$pid" 2>/dev/null
    done
    rm -rf "$dir"
}
failed() {
    echo "slurm_up: $1"
    tail -n 15 "$dir"/log/* 2>/dev/null
    stop
    exit 1
}
if [ "$action" = stop ]; then
    stop
    exit 0
fi

[ "$(id -u)" = 0 ] || not_here "slurmd must be started by root"
for program in munged slurmctld slurmd srun sinfo; do
    command -v $program >/dev/null || not_here "there is no $program"
done

[ "$count" = 1 ] || unshare --uts --mount true 2>/dev/null || not_here "nodes of their own need namespaces, which are not allowed here"

# free_port: one that nothing listens on.
free_port() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 20000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo $port
}
dir=$(mkdir -p "$dir" && cd "$dir" && pwd) || exit 1
mkdir -p "$dir"/{munge,state,log}
chmod 755 "$dir" # slurmd and munged look at the folders above their files
chmod 711 "$dir/munge"
head -c 1024 /dev/urandom >"$dir/munge.key"
chmod 400 "$dir/munge.key"
memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
host=$(hostname -s)
nodes=() conf=
for ((i = 1; i <= count; i++)); do
    node=$host
    [ "$count" = 1 ] || node=n$i
    nodes+=("$node")
    # PMIx keeps sockets in both folders, named by the job only: each node has its own.
    mkdir -p "$dir/spool/$node" "$dir/tmp/$node"
    conf+="NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=$cpus RealMemory=$memory Gres=gpu:8 State=UNKNOWN"$'\n'
done
chmod 1777 "$dir"/tmp/*
touch "$dir"/gpu{0..7} # Slurm wants files to be there
echo "Name=gpu File=$dir/gpu[0-7]" >"$dir/gres.conf"
cat >"$dir/slurm.conf" <<S
ClusterName=fluxpartest
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPort=$(free_port)
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
TmpFS=$dir/tmp/%n
GresTypes=gpu
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld
SlurmdLogFile=$dir/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
ReturnToService=2
KillWait=10
SlurmdParameters=config_overrides
$conf
PartitionName=test Nodes=$(IFS=,; echo "${nodes[*]}") Default=YES MaxTime=INFINITE State=UP
S
munged --key-file="$dir/munge.key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/log/munged" --seed-file="$dir/munge/seed" --force >"$dir/log/start" 2>&1 || failed "munged did not start"
export SLURM_CONF=$dir/slurm.conf
slurmctld -c >>"$dir/log/start" 2>&1 || failed "slurmctld did not start"
for node in "${nodes[@]}"; do
    # A name and shared memory of its own, as a machine has: MPI's files there are named by host, job and rank of the node.
    alone=()
    [ "$count" = 1 ] || alone=(unshare --uts --mount --propagation private bash -c
        'hostname "$0" && mount -t tmpfs -o mode=1777 tmpfs /dev/shm && exec "$@"' "$node")
    "${alone[@]}" slurmd -c -N "$node" >>"$dir/log/start" 2>&1 || failed "slurmd of $node did not start"
done
for _ in $(seq 150); do
    [ "$(sinfo -h -o %T 2>/dev/null)" = idle ] && break # of all nodes: one line
    sleep 0.2
done
[ "$(sinfo -h -o %T 2>/dev/null)" = idle ] || failed "the node did not become idle: $(sinfo -h -o '%T %E' 2>&1)"
echo "export SLURM_CONF=$SLURM_CONF PATH=\$PATH:/usr/sbin:/sbin" >"$dir/env"

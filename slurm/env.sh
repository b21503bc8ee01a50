# shellcheck shell=bash
# Sourced by every job of this folder: settings that all have, checks before any work, how ranks are started, how a job ends.
# A setting comes from outside: MODEL=/models/FLUX.1-dev sbatch slurm/one_image.sbatch. Changes no clocks, limits of power or modes
# of a device, and resets none.

# ---- settings ----
# The program. Default: build/ of the repository, bin/ of an installation.
: "${FLUXPAR:=}"
# A FLUX.1 folder in diffusers layout, or synthetic:flux-dev. Default: the bundled model.
: "${MODEL:=}"
# auto: GPUs where each rank can have one, else the processors. cuda: GPUs or an error. cpu: for partitions without.
: "${BACKEND:=auto}"
# How srun wires MPI: pmix, or pmi2 where MPI was built with it; 'srun --mpi=list' shows what Slurm has.
: "${MPI:=pmix}"
# Seconds after which a rank that does not come is called lost.
: "${TIMEOUT:=60}"
# More flags for fluxpar, in words: ARGS="--steps 28 --guidance 4".
: "${ARGS:=}"
# 1: 'fluxpar doctor' looks at the allocation first (links, libraries, wiring), and a finding ends the job.
: "${DOCTOR:=0}"
# How often a batch starts again after runs that made no picture. After one that did it always goes on.
: "${MAX_RESTARTS:=3}"
# Where IMEX makes its channels (NVL72); a job needs one to reach memory of other nodes.
: "${IMEX_CHANNELS:=/dev/nvidia-caps-imex-channels}"

job() { printf '# job %s: %s\n' "${SLURM_JOB_ID:-0}" "$*" >&2; }
refuse() { # TEXT: a wrong setting or allocation; exit code 2, as of fluxpar
    job "error: $*"
    exit 2
}

# Set by the scripts: $home is the repository, or share/fluxpar of an installation.
[ -n "$FLUXPAR" ] || for FLUXPAR in "$home/build/fluxpar" "$home/../../bin/fluxpar"; do [ ! -x "$FLUXPAR" ] || break; done
[ -x "$FLUXPAR" ] || refuse "no program $FLUXPAR; build it, or set FLUXPAR"
[ -n "$MODEL" ] || for MODEL in "$home/launch/demo/model" "$home/demo/model"; do [ ! -d "$MODEL" ] || break; done
read -r -a more_flags <<<"$ARGS"

# NCCL's threads get the limit as their size: unlimited would be the smallest there is.
[ "$(ulimit -s)" != unlimited ] || ulimit -s 8192
# srun takes --cpus-per-task from its own variable since Slurm 22.05.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# ranks SRUN-FLAGS... -- FLUXPAR-ARGUMENTS...: one fluxpar on all tasks. A rank that is lost ends all of them.
ranks() {
    local flags=()
    while [ "$1" != -- ]; do
        flags+=("$1")
        shift
    done
    shift
    srun --mpi="$MPI" --cpu-bind=cores --kill-on-bad-exit=1 "${flags[@]}" "$FLUXPAR" "$@"
}
# generate ARGUMENTS...: pictures with the settings above.
generate() { ranks -- generate -m "$MODEL" --backend "$BACKEND" --timeout "$TIMEOUT" "$@" "${more_flags[@]}"; }

# once_per_node COMMAND...: its lines, with the node's name before each.
once_per_node() { srun --mpi=none --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 "$@"; }

doctor() {
    [ "$DOCTOR" = 1 ] || return 0
    "$FLUXPAR" help 2>/dev/null | grep doctor >/dev/null || refuse "DOCTOR=1, but this fluxpar has no doctor"
    ranks -- doctor -m "$MODEL" || refuse "the doctor found something, see above; DOCTOR=0 runs without asking"
}

# For fields of 'nvidia-smi -q': state, clique and cluster of each GPU's fabric, the channels, IMEX's own word.
fabric_of_node='
    set -o pipefail
    node=${SLURMD_NODENAME:-$(hostname)}
    nvidia-smi -q | awk -v node="$node" "/^ +(Fabric)\$/ {f = 1; next} f && / State +:/ {state = \$NF} f && / Status +:/ {status = \$NF}
        f && /CliqueId +:/ {clique = \$NF} f && /ClusterUUID +:/ {print node, \"fabric\", state, status, \$NF \"/\" clique; f = 0}" || exit 1
    usable=0
    for c in '"$IMEX_CHANNELS"'/channel*; do [ -r "$c" ] && [ -w "$c" ] && usable=$((usable + 1)); done
    echo "$node channels $usable"
    if command -v nvidia-imex-ctl >/dev/null; then echo "$node imex $(nvidia-imex-ctl -q 2>&1 | tail -n 1)"; fi'

# one_nvlink_domain: all GPUs of the job are in one NVLink domain, and the job may use its memory; else says on which node and why.
one_nvlink_domain() {
    local found bad domains
    [ "$BACKEND" != cpu ] || return 0
    found=$(once_per_node bash -c "$fabric_of_node") || refuse "nvidia-smi failed on a node; BACKEND=cpu runs without GPUs"
    bad=$(awk '$2 == "fabric" && ($3 != "Completed" || $4 != "Success") {print $1 ": fabric " $3 " " $4}
        $2 == "channels" && $3 == 0 {print $1 ": no channel of IMEX"} $2 == "imex" && $3 != "READY" {print $1 ": IMEX is " $3}' <<<"$found" | sort -u)
    [ -z "$bad" ] || refuse "NVLink between nodes cannot be used: $(paste -sd ';' <<<"$bad"); fabric manager and IMEX are the site's to start, the job's channel its prolog's"
    domains=$(awk '$2 == "fabric" {print $5}' <<<"$found" | sort | uniq -c | awk '{printf "%s%s (%d GPUs)", sep, $2, $1; sep = ", "}')
    [ -n "$domains" ] || refuse "these GPUs have no NVLink between nodes; BACKEND=cpu or two_nodes.sbatch run without"
    [[ $domains != *,* ]] || refuse "the nodes are of several NVLink domains: $domains; ask Slurm for one with --segment=$SLURM_JOB_NUM_NODES"
    job "one NVLink domain, $domains"
}

made() { grep -sc '^{"status":"ok"' "$1" || true; }
# batch JOBS RESULTS ARGUMENTS...: makes what is missing of a jobs file, and ends the job. A run that was asked to end (--signal before the
# time limit) or lost a rank is put into the queue again and goes on there; nothing is made twice. After scancel, a preemption or
# an error it ends; Slurm itself brings back what a node's failure or a preemption (PreemptMode=REQUEUE) ended.
batch() {
    local jobs=$1 results=$2 before after code=0
    shift 2
    [ -r "$jobs" ] || refuse "no jobs file $jobs; set JOBS"
    before=$(made "$results")
    job "$jobs: ${before:-0} pictures are there, run $((${SLURM_RESTART_COUNT:-0} + 1))"
    generate --batch "$jobs" --results "$results" --resume "$@" || code=$?
    after=$(made "$results")
    job "$jobs: ${after:-0} pictures are there, exit code $code"
    case $code in
    138 | 5 | 137) ;; # SIGUSR1; a lost rank, as fluxpar and as srun say it
    *) exit "$code" ;;
    esac
    if [ "${after:-0}" -le "${before:-0}" ] && [ "${SLURM_RESTART_COUNT:-0}" -ge "$MAX_RESTARTS" ]; then
        job "error: no picture was made in this run, the last of $MAX_RESTARTS restarts; see the log above"
        exit "$code"
    fi
    job "goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID" || exit "$code"
    sleep 60 # Slurm ends this script
    exit "$code"
}

#!/usr/bin/env bash
# Bad input: one clear line, the documented exit code, no hang, no file. On one rank and on several.
. "$(dirname "$0")/lib.sh"
need_model
mkdir out

gen_bad() { gen -o out/bad.png "$@"; }

# ---- usage: 2 ----
bad_usage() { # PATTERN ARGS...: on one rank
    local pattern=$1
    shift
    fx "$@"
    refused 2 "$pattern" "$*"
}
bad_usage "no subcommand"
bad_usage "unknown subcommand generat; did you mean generate" generat
bad_usage "stands before the subcommand" --steps 4
bad_usage "unknown flag --stpes; did you mean --steps" generate --stpes 4
bad_usage "unknown flag -z" generate -z
bad_usage "-s is ambiguous: use --steps or --seed" generate -s 4
bad_usage "--json is not a flag of generate" generate --json
bad_usage "--steps has no value" generate --steps
bad_usage "--force takes no value" generate --force=yes
bad_usage "stands alone" generate pizza
bad_usage "no model" generate -p x
bad_usage "no prompt" generate -m "$model"
bad_usage "one argument too many" info a.png b.png
bad_usage "no file" inspect
bad_usage "exclude each other" generate -m "$model" -p x -q -v
bad_usage "only one prompt" generate -m "$model" -p x --prompt-file y

bad_value() { # PATTERN FLAGS...
    local pattern=$1
    shift
    gen_bad "$@"
    refused 2 "$pattern" "$*"
}
bad_value "--steps 0 .*from 1 to 1000" --steps 0
bad_value "--steps 1001 .*from 1 to 1000" --steps 1001
bad_value "--steps four" --steps four
bad_value "--guidance -1 .*from 0 to 100" -g -1
bad_value "--guidance 100.5 .*from 0 to 100" --guidance=100.5
bad_value "--guidance nan" -g nan
bad_value "--seed -1" -S -1
bad_value "--seed 18446744073709551616" -S 18446744073709551616
bad_value "--dtype fp8 .*bf16\|f32" --dtype fp8
bad_value "--backend tpu .*auto\|cpu\|onednn\|ref\|guard\|cuda" --backend tpu
if grep -qa cuda-staged "$fluxpar"; then skip "--backend cuda" "it is built in"; else
    bad_value "backend 'cuda' is not built in; choose auto or one of: cpu" --backend cuda
fi
bad_value "--layout odd" --layout odd
bad_value "--exact yes" --exact yes
bad_value "--threads 0" --threads 0
bad_value "--t5-len 513 .*from 1 to 512" --t5-len 513
bad_value "--timeout 0" --timeout 0
bad_value "--width 100 .*96 and 112" -W 100
bad_value "--height 1000 .*992 and 1008" -H 1000
bad_value "--width 8 .*16" -W 8
bad_value "ulysses|mesh|1x1" --ulysses 2
bad_value "-n 2 from --seed 18446744073709551615" -n 2 -S 18446744073709551615
prompt=$'caf\xe9' gen_bad
refused 2 "not valid UTF-8 at byte 3" "prompt in Latin-1"
fx generate -m "$model" --prompt-file nothing.txt -o out/bad.png
refused 2 "nothing.txt cannot be opened" "missing prompt file"
printf 'a\0b' >zero.txt
fx generate -m "$model" --prompt-file zero.txt -o out/bad.png
refused 2 "zero byte" "binary prompt file"
head -c 1100000 /dev/zero | tr '\0' a >large.txt
fx generate -m "$model" --prompt-file large.txt -o out/bad.png
refused 2 "larger than 1 MiB" "large prompt file"
touch exists.png
gen -o exists.png
refused 2 "exists.png exists.*-f" "existing output"
check "existing output is untouched" bash -c '[ ! -s exists.png ]'
gen -o out
refused 2 "is a folder" "output is a folder"
gen -o out/bad.jpg
refused 2 "only PNG" "JPEG output"
gen -o -
refused 2 "-o - is not possible" "output -"
gen_bad --dump exists.png
refused 2 "not a folder" "dump into a file"

# ---- the same on several ranks ----
mpi 3 generate -m "$model" -p x --stpes 4
refused 2 "did you mean --steps" "unknown flag, 3 ranks"
mpi 3 generat
refused 2 "did you mean generate" "unknown subcommand, 3 ranks"
gen_mpi 3 -o out/bad.png --ulysses 2
refused 2 "1x3.*3x1|3x1.*1x3" "impossible mesh, 3 ranks"
gen_mpi 3 -o out/bad.png -W 100
refused 2 "96 and 112" "width, 3 ranks"
gen_mpi 3 -o exists.png
refused 2 "exists.png exists" "existing output, 3 ranks"
cat >differ.sh <<'S'
#!/bin/sh
exec "$FLUXPAR" "$@" --steps $((2 + ${OMPI_COMM_WORLD_RANK:-0} / 2))
S
chmod +x differ.sh
rc=0
ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 FLUXPAR=$fluxpar timeout 60 mpirun "${mpi_flags[@]}" -np 3 ./differ.sh generate -m "$model" -p x -o out/bad.png >"$out" 2>"$err" || rc=$?
refused 2 "this rank has --steps '3' and rank 0 has '2'" "arguments differ"
check "arguments differ: names rank 2" says "error: rank 2 "

export PMI_SIZE=4 PMI_RANK=0 # a launcher that this MPI knows nothing of: four jobs of one rank
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
gen_bad
refused 2 "MPI started 1 process but the launcher started 4" "MPI not wired to the launcher"
PMI_RANK=2 gen_bad
check "MPI not wired: the other tasks are silent" silent "$err"
check "MPI not wired: and end with the same code" rc_is 2
unset PMI_SIZE PMI_RANK

# ---- model files: 3 ----
# bad_model PATTERN NAME: the model in ./m, on one rank and on three.
bad_model() {
    fx generate -m m -p x --steps 1 -o out/bad.png
    refused 3 "$1" "$2"
    mpi 3 generate -m m -p x --steps 1 -o out/bad.png
    refused 3 "$1" "$2, 3 ranks"
}
weights=transformer/diffusion_pytorch_model.safetensors
edit() { # edit FILE SED: in the copy of the model
    own_file "$1"
    sed -i "$2" "$1"
}
fx generate -m nowhere -p x -o out/bad.png
refused 3 "nowhere cannot be read" "no such model"
fx generate -m . -p x -o out/bad.png
refused 3 "no model folder" "not a model folder"
fx generate -m "$model/transformer" -p x -o out/bad.png
refused 3 "one component" "a component folder"
fx generate -m synthetic:flux-pro -p x -o out/bad.png
refused 3 "synthetic:flux-pro is not known" "unknown synthetic model"

copy_model m && rm m/$weights
bad_model "transformer holds no .safetensors" "missing weights"
fx inspect m
check "inspect names missing weights" prints "problem +transformer holds no"
check "inspect of a broken model: exit 3" rc_is 3
copy_model m && rm -r m/vae
bad_model "folder vae is missing" "missing component"
copy_model m && rm m/tokenizer_2/*
bad_model "tokenizer_2 holds neither" "missing tokenizer"
copy_model m && own_file m/$weights && truncate -s -1000 m/$weights
bad_model "$weights" "truncated weights"
copy_model m && own_file m/$weights && truncate -s 5 m/$weights
bad_model "$weights" "weights of 5 bytes"
copy_model m && rm m/$weights && printf 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 16283096\n' >m/$weights
bad_model "git-lfs pointer.*git lfs pull" "git-lfs pointer"
copy_model m && edit m/$weights '0,/"dtype": *"BF16"/s//"dtype":"XX16"/'
bad_model "XX16|dtype" "unknown dtype"
copy_model m && edit m/$weights 's/"proj_out\.bias"/"proj_out.bios"/'
bad_model "proj_out.bias" "missing tensor"
shape=$(head -c 200000 "$model/$weights" | grep -aoE '"x_embedder\.weight":\{[^}]*\}' | grep -oE '"shape": *\[[0-9]+, *[0-9]+\]' | head -n 1)
swapped=$(sed -E 's/\[([0-9]+),( *)([0-9]+)\]/[\3,\2\1]/' <<<"$shape")
if [ -n "$shape" ]; then
    copy_model m && edit m/$weights "s/\(\"x_embedder\.weight\":{[^}]*\)$(sed 's/[][]/\\&/g' <<<"$shape")/\1$(sed 's/[][]/\\&/g' <<<"$swapped")/"
    bad_model "x_embedder.weight.*want.*" "wrong shape"
else skip "wrong shape" "no x_embedder.weight in the header"; fi
copy_model m && edit m/model_index.json 's/FluxPipeline/StableDiffusion3Pipeline/'
bad_model "StableDiffusion3Pipeline" "unknown kind"
copy_model m && edit m/model_index.json 's/FluxPipeline/FluxKontextPipeline/'
bad_model "Kontext.*not supported yet" "Kontext"
copy_model m && edit m/transformer/config.json 's/"in_channels": 64/"in_channels": 384/'
bad_model "Fill.*not supported yet" "Fill"
copy_model m && edit m/transformer/config.json 's/"in_channels": 64/"in_channels": 128/'
bad_model "Canny.*not supported yet" "Canny or Depth"
copy_model m && edit m/transformer/config.json 's/"patch_size": 1/"patch_size": 2/'
bad_model "patch_size" "patch_size 2"
copy_model m && own_file m/scheduler/scheduler_config.json && sed -i 's/^{/{"shift_terminal": 0.02, "use_karras_sigmas": true,/' m/scheduler/scheduler_config.json
bad_model "shift_terminal|use_karras_sigmas" "schedule that is not implemented"
copy_model m && own_file m/vae/config.json && echo '{' >m/vae/config.json
bad_model "vae/config.json" "config that is no JSON"
# Names that lead out of a component's folder, though the file is there and good.
copy_model m && cp -L m/$weights m/outside.safetensors
for path in ../outside.safetensors "$work/m/outside.safetensors" ../transformer/diffusion_pytorch_model.safetensors; do
    printf '{"weight_map": {"proj_out.bias": "%s"}}' "$path" >m/transformer/diffusion_pytorch_model.safetensors.index.json
    fx generate -m m -p x --steps 1 -o out/bad.png
    refused 3 "index.json.*proj_out.bias.*in this folder" "an index entry $path"
done
# Paths in configs are those of the machine that made them: nothing is opened by them.
copy_model m
for file in model_index.json transformer/config.json tokenizer/tokenizer_config.json tokenizer_2/tokenizer_config.json; do
    [ -e "m/$file" ] || continue
    edit "m/$file" '0,/^ *{/s//{"_name_or_path": "\/etc\/passwd", "name_or_path": "..\/..", "vocab_file": "\/nowhere\/vocab.json", "tokenizer_file": "..\/none",/'
done
gen -o plain.png --dump plain
fx generate -m m -p "a slice of pizza on a blue background" --steps 2 --t5-len 16 -S 1 --threads 1 -o paths.png --dump paths
check "paths in configs: exit code" rc_is 0
check "paths in configs: the same pixels" cmp plain/rgb8.npy paths/rgb8.npy
printf 'GGUF\003\0\0\0' >x.gguf
fx inspect x.gguf
check "GGUF: exit 3" rc_is 3
check "GGUF: named" prints "GGUF file"
printf '\200\002' >x.pt
fx inspect x.pt
check "pickle: named" prints "pickle"
header='{"double_blocks.0.img_attn.norm.key_norm.scale":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"guidance_in.in_layer.weight":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
# shellcheck disable=SC2059
{ printf "\\x$(printf %x ${#header})\0\0\0\0\0\0\0"; printf '%s\0\0\0\0\0\0\0\0' "$header"; } >flux1-dev.safetensors
fx inspect flux1-dev.safetensors
check "BFL file: named" prints "BFL single file"
fx generate -m flux1-dev.safetensors -p x -o out/bad.png
refused 3 "BFL single file.*not supported yet" "BFL file"
fx info prompt.png
refused 2 "prompt.png" "info of a missing file"
echo text >text.png
fx info text.png
refused 2 "text.png" "info of a text"

# ---- numbers: 6 ----
if poison "$weights" 'x_embedder\.bias'; then
    fx generate -m m -p x --steps 2 -o out/bad.png
    refused 6 "step 1, block [a-z_0-9]+, rank 0" "NaN in the weights"
    mpi 3 generate -m m -p x --steps 2 -o out/bad.png
    refused 6 "step 1, block [a-z_0-9]+, rank [0-2]" "NaN in the weights, 3 ranks"
else skip "NaN in the weights" "no x_embedder.bias in the header"; fi
if poison vae/diffusion_pytorch_model.safetensors 'decoder\.conv_out\.bias'; then
    fx generate -m m -p x --steps 1 -o out/bad.png
    refused 6 "vae decoder, rank 0: .*not finite" "NaN in the decoder"
    mpi 3 generate -m m -p x --steps 1 -o out/bad.png
    refused 6 "vae decoder, rank [0-2]: .*not finite" "NaN in the decoder, 3 ranks"
else skip "NaN in the decoder" "no decoder.conv_out.bias in the header"; fi

# ---- what exists is not lost ----
echo precious >kept.json
gen -o out/bad.png --report kept.json
refused 2 "kept.json exists" "report over a file"
check "report over a file: it is as it was" same "$(cat kept.json)" precious
gen -o out/bad.png --report out/bad.png
refused 2 "the picture's own name" "report and picture of one name"
copy_model m
rm m/tokenizer_2/tokenizer_config.json && ln -s nowhere m/tokenizer_2/tokenizer_config.json
fx generate -m m -p x --steps 1 -o out/bad.png
refused 3 "tokenizer_config.json" "a tokenizer file that is a dangling link"

# ---- output: 7 ----
gen -o nowhere/bad.png
refused 7 "nowhere/bad.png" "folder that does not exist"
gen_mpi 3 -o nowhere/bad.png
refused 7 "nowhere/bad.png" "folder that does not exist, 3 ranks"
gen -o /proc/bad.png
refused 7 "/proc/bad.png" "folder that cannot be written"
gen_bad --report nowhere/r.json
refused 7 "nowhere/r.json.*--report" "report that cannot be written"
check "refused before any work" bash -c "! grep -q '^load' '$err'"
rc=0
(ulimit -f 4; exec "$fluxpar" generate -m "$model" -p x --steps 1 --t5-len 8 -S 1 -o out/bad.png) >"$out" 2>"$err" || rc=$?
refused 7 "out/bad.png" "file size limit"
rc=0
"$fluxpar" inspect "$model" >/dev/full 2>"$err" || rc=$?
: >"$out"
refused 7 "standard output" "full standard output"

# ---- memory: 8 ----
if sanitized; then skip "memory limit" "built with AddressSanitizer"; else
    rc=0
    (ulimit -v 3000000; exec "$fluxpar" generate -m "$model" -p x --steps 1 --t5-len 8 -S 1 -W 8192 -H 8192 --threads 1 -o out/bad.png) >"$out" 2>"$err" || rc=$?
    refused 8 "" "memory limit"
fi

check "no refused run left a file" only_files out
finish

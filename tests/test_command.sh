#!/bin/sh
# The atmsae command, run as a user would: test_command.sh PATH/TO/atmsae. TAP on stdout; exit code 1
# if anything failed. Rows come from examples/data, cut to a few thousand.
data=$(cd "$(dirname "$0")/../examples/data" && pwd)
# shellcheck source=tests/command.sh
. "$(dirname "$0")/command.sh"
npy a.npy 0 1200
npy b.npy 1200 1000
npy v.npy 2200 800

# ---- help and usage ----
expect 2 "no command is a usage error"
expect 0 "--help" --help
says out "train"
expect 0 "--version" --version
for command in train eval info convert compare; do
    expect 0 "$command --help" $command --help
    says out "examples"
done
expect 2 "unknown command" trian
says err "did you mean train?"
expect 2 "unknown option" train --inptu a.npy --out o
says err "did you mean --input?"
expect 2 "unknown choice" train --input a.npy --out o --arch batchtpk
says err "did you mean batchtopk?"
expect 2 "missing option" train --out o
says err "--input"
expect 2 "missing value" train --input a.npy --out
expect 2 "out of range" train --input a.npy --out o --c -1
says err ">= 0"
expect 2 "not a number" train --input a.npy --out o --lr fast
expect 2 "fraction of a row" train --input a.npy --out o --rows 0.5
expect 2 "options that contradict" train --input a.npy --out o --arch topk --sparsity 2
expect 2 "fewer rows than a step" train --input a.npy --out o --batch 4096 --rows 1200
says err "--batch"
expect 1 "missing input" train --input missing.npy --out o --batch 100
says err "missing.npy"
head -c 5000 a.npy >cut.npy
expect 1 "truncated input" train --input cut.npy --out o --batch 100
says err "cut.npy"

# ---- train ----
small="--d-sae 192 --k 8 --batch 100 --lr 1e-3 --seed 7"
expect 0 "train" train --input a.npy b.npy $small --rows 4k --out run --metrics run.csv --valid v.npy --plot run.svg
says err "dead-window"
says out "fvu"
for file in run/cfg.json run/sae_weights.safetensors run/checkpoint.safetensors run/run.json run.svg; do
    [ -s "$file" ]
    report $? "... and $file is there"
done
[ "$(wc -l <run.csv)" -eq 41 ]
report $? "... and run.csv has a header and 40 steps"
expect 1 "an SAE is not overwritten" train --input a.npy b.npy $small --rows 4k --out run
says err "--force"
expect 0 "--force overwrites" train --input a.npy b.npy $small --rows 4k --out run --force --quiet
! grep -v "^atmsae: warning: " err
report $? "... and --quiet is quiet"
for arch in standard topk "jumprelu --target-l0 8" "jumprelu --jumprelu-form anthropic" gated matryoshka; do
    expect 0 "--arch $arch" train --input a.npy --d-sae 64 --batch 100 --rows 1k --arch $arch --out arch --force --quiet
done
for mask in paper uniform permuted none "atm --mask-per step --r 0.5 --c 2"; do
    expect 0 "--mask $mask" train --input a.npy --d-sae 64 --batch 100 --rows 1k --mask $mask --out mask --force --quiet
done
for case in "second-loss|2|row|--seed 0" "hard|0.25|step|--mask-effect hard" "hard|0.25|step|--mask paper"; do
    IFS='|' read -r effect r per options <<END
$case
END
    # shellcheck disable=SC2086  # options are words
    expect 0 "masks: $options" train --input a.npy --d-sae 64 --batch 100 --rows 4k $options --out mask --force --quiet
    grep -q "\"mask-effect\": \"$effect\"," mask/run.json && grep -q "\"r\": $r," mask/run.json && grep -q "\"mask-per\": \"$per\"," mask/run.json
    report $? "... are $effect, with a rate and rows of their own"
done
expect 2 "--alpha without a second loss" train --input a.npy --d-sae 64 --batch 100 --rows 1k --mask-effect hard --alpha 1 --out mask --force --quiet
says err "--alpha goes with --mask-effect second-loss only"
expect 0 "--metrics as JSON lines" train --input a.npy $small --rows 1k --out jsonl --metrics run.jsonl --quiet
[ "$(grep -c '^{"step": [0-9]*, .*}$' run.jsonl)" -eq 10 ]
report $? "... and every line is an object"

# ---- interruption and resume: the same bits ----
long="--input a.npy b.npy $small --rows 120k --quiet"
expect 0 "a run without a break" train $long --threads 1 --out whole --metrics whole.csv

# Starts a run, waits until it has made some steps, sends it a signal; its exit code is in $code.
interrupted_run() { # SIGNAL ARGUMENTS...
    signal=$1
    shift
    env --default-signal=INT,TERM "$atmsae" "$@" >out 2>err </dev/null &
    pid=$!
    wait_for_lines part.csv 60
    kill -s "$signal" $pid
    wait $pid
    code=$?
}
for signal in TERM INT; do
    rm -rf part part.csv
    interrupted_run $signal train $long --threads 2 --out part --metrics part.csv
    [ "$code" -eq 130 ]
    report $? "SIG$signal ends a run with code 130"
    says err "atmsae resume part"
    expect 0 "... and it resumes" train $long --threads 2 --out part --metrics part.csv --resume
    same "... to the same SAE" whole/sae_weights.safetensors part/sae_weights.safetensors
    same "... and the same metrics" whole.csv part.csv
done
rm -rf part part.csv
interrupted_run KILL train $long --out part --metrics part.csv --checkpoint-every 2k
[ "$code" -eq 137 ] && [ -s part/checkpoint.safetensors ]
report $? "SIGKILL leaves the last checkpoint"
expect 1 "a checkpoint is not overwritten" train $long --out part
expect 1 "resume refuses another setting" train $long --out part --resume --c 2
says err "--c is 2"
expect 1 "resume refuses other rows" train --input a.npy --rows 120k --out part --resume
expect 0 "... and resumes" train $long --out part --metrics part.csv --resume
same "... to the same SAE" whole/sae_weights.safetensors part/sae_weights.safetensors
same "... and the same metrics" whole.csv part.csv
expect 0 "a finished run can be made longer" train --input a.npy b.npy --rows 125k --out part --resume
says err "120000 rows and now gets 125000"
expect 1 "nothing to resume" train --input a.npy --out nowhere --resume

# ---- eval and info ----
expect 0 "eval" eval --sae whole --input v.npy
says out "fvu"
expect 0 "eval --json with words" eval --sae whole --input v.npy --words "$data/words.safetensors" --json
says out '"absorption":'
says out '"densities":'
says out '"absorption_fraction_v060":'
says out '"main_precision":'
expect 0 "absorption's settings" eval --sae whole --input v.npy --words "$data/words.safetensors" --absorption-max-split 1
says out "mean_split *1$"
expect 0 "eval with a pair" eval --sae whole --input v.npy --pair whole
says out "pair_mcc *1$"
expect 1 "a pair that is none" eval --sae whole --input v.npy --pair nowhere
# Forty texts: rows of the sample, two tasks whose labels alternate, every other pair of texts for training.
{
    printf '\000\001\000\000\000\000\000\000'
    printf '%-256s' '{"activations":{"dtype":"F16","shape":[40,576],"data_offsets":[0,46080]},"labels":{"dtype":"I8","shape":[40,2],"data_offsets":[46080,46160]},"is_train":{"dtype":"U8","shape":[40],"data_offsets":[46160,46200]}}'
    tail -c +129 "$data/activations-valid.npy" | head -c 46080
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do printf '\001\000\000\001'; done
    for _ in 1 2 3 4 5 6 7 8 9 10; do printf '\000\000\001\001'; done
} >texts.safetensors
echo ' [ "odd", "\"even\"" ] ' >texts.tasks.json
expect 0 "eval with probing" eval --sae whole --input v.npy --probing texts.tasks.json --json
says out '"probing_tasks": 2'
says out '"probing_raw_all":'
says out '"task": "\\"even\\""'
echo '["odd"' >bad.tasks.json
expect 1 "task names that are none" eval --sae whole --input v.npy --probing bad.tasks.json
says err "not a JSON list"
expect 1 "tasks of another name" eval --sae whole --input v.npy --probing texts.json
expect 1 "eval on rows of another width" eval --sae whole --input whole/sae_weights.safetensors --tensor W_enc
expect 1 "eval without an SAE" eval --sae nowhere --input v.npy
expect 0 "info" info whole part/checkpoint.safetensors a.npy "$data/words.safetensors"
says out "steps-done *1250"
says out "F16 \[1200, 576\]"
says out "mask *atm"
expect 0 "info --json" info whole --json
expect 1 "info on nothing" info nowhere

# ---- convert and info on the formats of others ----
formats=$(dirname "$data")/../tests/fixtures/formats
for sae in dictionary_BatchTopKSAE/ae.pt gemma_scope/params.npz gemma_scope_2 sparsify_topk saelens_batchtopk; do
    expect 0 "info $sae" info "$formats/$sae"
    says out "kind *SAE"
    says out "d-sae *16"
    expect 0 "convert $sae" convert "$formats/$sae" converted --force
    says out "d-sae *16"
    expect 0 "... and the result is an SAE" info converted
    says out "format *saelens"
done
expect 0 "info says the language model" info "$formats/dictionary_BatchTopKSAE" --json
says out '"model-name": "EleutherAI/pythia-70m-deduped"'
expect 1 "convert replaces nothing" convert "$formats/gemma_scope" converted
says err "--force"
expect 0 "convert to .npz" convert "$formats/saelens_batchtopk" c.npz --fold-decoder-norm --model-name m --json
says out '"format": "saelens"'
expect 0 "... which is Gemma Scope's" info c.npz
says out "format *gemma-scope"
expect 0 "convert to .gguf" convert "$formats/saelens_batchtopk" c.gguf --latents 3,5 --strength 8 --layer 20
grep -q "direction.20" c.gguf
report $? "... and the direction is in it"
expect 2 "a .gguf needs latents" convert "$formats/saelens_batchtopk" d.gguf
says err "--latents and --layer"
expect 2 "latents are for a .gguf" convert "$formats/saelens_batchtopk" d --latents 3
expect 1 "a latent that is none" convert "$formats/saelens_batchtopk" d.gguf --latents 16 --layer 2
says err "allowed: 0 to d_sae - 1 = 15"
expect 2 "one path" convert "$formats/saelens_batchtopk"
expect 2 "an unknown format" convert "$formats/saelens_batchtopk" d --to saelnes
says err "did you mean saelens?"
expect 1 "what cannot be represented" convert "$formats/sparsify_topk" d.npz
says err "not TOPK"
head -c 2000 "$formats/dictionary_BatchTopKSAE/ae.pt" >ae.pt
cp "$formats/dictionary_BatchTopKSAE/config.json" .
expect 1 "a .pt that is cut" convert ae.pt d
says err "ae.pt"

finish

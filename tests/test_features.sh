#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: test_features.sh PATH/TO/atmsae
# atmsae features: its JSON against plain sums over the saved weights (features.py), and its page as a
# browser shows it. TAP on stdout.
here=$(cd "$(dirname "$0")" && pwd)
data=$here/../examples/data
# shellcheck source=tests/command.sh
. "$here/command.sh"
npy a.npy 0 2000
npy v.npy 2000 300
# A name for each row; some that would break out of a page or a string, and bytes that are no UTF-8.
awk 'BEGIN { for (i = 0; i < 300; i++) print i == 7 ? "</script><b>&\"\\" : i == 8 ? "<!--" : "word" i }' >words.txt
printf 'z\377z\n' >bad && sed '10r bad' words.txt | sed 10d >words2.txt
awk '{ printf "\304\240%s\n", $0 } NR % 20 == 0 { print "" }' words.txt >tokens.txt

# ---- a run leaves the importance of its latents, the same with a break ----
small="--input a.npy --d-sae 96 --k 4 --batch 20 --lr 1e-3 --seed 3 --quiet"
expect 0 "a run" train $small --rows 4k --out sae --checkpoint-every 2k
[ -s sae/importance.safetensors ]
report $? "... and importance.safetensors is there"
mkdir half && cp sae/importance.safetensors half/ && cp sae/checkpoint.previous.safetensors half/checkpoint.safetensors
expect 0 "from its middle on" train $small --rows 4k --out half --resume
cmp sae/importance.safetensors half/importance.safetensors >out 2>err
report $? "... the same importance.safetensors"

# ---- usage ----
one="--sae sae --input v.npy"
expect 2 "no output" features $one
says err "--json"
expect 2 "words and tokens" features $one --words words.txt --tokens tokens.txt --out x.html
expect 1 "too few words" features $one --words bad --out x.html
says err "300 rows"
expect 1 "a latent that is not there" features $one --latents 3,96 --out x.html
says err "0 .. 95"
expect 1 "no importance" features $one --importance v.npy --out x.html
expect 1 "a folder that is not there" features $one --out none/x.html
says err "none/x.html"
[ ! -e x.html ]
report $? "nothing was written"

# ---- results ----
expect 0 "words" features $one --words words2.txt --json words.json --out words.html
expect 0 "one thread gives the same bytes" features $one --words words2.txt --json again.json --threads 1 --quiet
cmp words.json again.json >out 2>err
report $? "... that is"
expect 0 "tokens" features $one --tokens tokens.txt --json tokens.json --out tokens.html --quiet
[ ! -s err ]
report $? "... and --quiet is quiet"
expect 0 "some latents" features $one --latents 5,2 --examples 3 --neighbours 2 --json some.json --quiet
expect 0 "the most frequent" features $one --top 4 --json top.json --quiet
if command -v python3 >/dev/null; then
    python3 "$here/features.py" . >checks 2>err
    report $? "the checks of features.py ran to their end"
    while read -r status name; do report "$status" "$name"; done <checks
else
    skip "results" "no python3"
fi
grep -oE "(https?:)?//[a-z][^\"' <)]*" words.html | grep -vx 'http://www.w3.org/2000/svg' >out
[ ! -s out ]
report $? "the page names nothing outside of itself"

# ---- in a browser ----
browser=
for name in chromium chromium-browser google-chrome; do
    [ -n "$browser" ] || browser=$(command -v "$name")
done
# Prints the page as the script has left it. No network: whatever it asked for would fail.
look() { # PAGE HASH
    timeout 200 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --proxy-server=127.0.0.1:9 \
        --virtual-time-budget=5000 --dump-dom "file://$work/$1#$2" 2>err
}
if [ -n "$browser" ] && command -v python3 >/dev/null && look words.html '' | grep -q '<main'; then
    for page in words tokens; do
        latent=$(python3 -c "import json; print(json.load(open('$page.json'))['latents'][9]['latent'])")
        look $page.html "latent=$latent" >$page.dom || look $page.html "latent=$latent" >$page.dom
        python3 "$here/features.py" . $page.dom $latent >checks 2>err
        report $? "$page.html#latent=$latent was looked at"
        while read -r status name; do report "$status" "$page.html: $name"; done <checks
    done
    # The same page, and a script that does what a reader does.
    sed '/<\/body>/,$d' words.html >used.html
    cat "$here/features_reader.html" >>used.html
    look used.html '' | sed -n 's/.*<li class="check">\([01] [^<]*\)<\/li>.*/\1/p' >checks
    [ "$(wc -l <checks)" -eq 18 ]
    report $? "a reader gets to the end"
    while read -r status name; do report "$status" "reader: $name"; done <checks
else
    skip "the page in a browser" "no chromium, or it does not start; apt-get install chromium"
fi

finish

#!/bin/sh
# A stand-in for trtexec that takes milliseconds: says what tests/fake_trtexec.py said once, to the
# letter. Beside it lie `help`, `build` (logs), `outputs/DIGEST` (by the digest of the inputs), and
# `breakpoint`, which it reads before it does anything that lasts.
here=${0%/*} engine='' output='' inputs='' loads=''
for word; do
    case $word in
    --help) exec cat "$here/help" ;;
    --saveEngine=*) engine=${word#*=} ;;
    --loadEngine=*) loads=${word#*=} ;;
    --exportOutput=*) output=${word#*=} ;;
    --loadInputs=*) inputs=${word##*:} ;;
    esac
done
# shellcheck disable=SC1091 # a test writes it
. "$here/breakpoint"
if [ "$engine" ]; then
    cat "$here/build" && cat model.onnx manifest.json >"$engine"
else
    [ -f "$loads" ] || exit 1
    digest=$(sha256sum <"$inputs") && cp "$here/outputs/${digest%% *}" "$output"
fi

#!/bin/sh
# Runs a command in a release's folder and gives the file it wrote on stdout; what it says goes to
# verify.log there, and to stderr if it fails.
# usage: sh -c TEXT edgecal FOLDER OUTPUT ARGV...
cd "$1" || exit 1
output=$2
shift 2
rm -f "$output"
"$@" >verify.log 2>&1 </dev/null
status=$?
if [ "$status" -eq 0 ]; then
    cat "$output" || status=1
else
    tail -n 5 verify.log >&2
fi
rm -f "$output"
exit "$status"

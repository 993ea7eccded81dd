#!/bin/sh
# Prints the SHA-256 of files, one line each in their order: 64 hex digits, or a dash where a file
# cannot be read.
# usage: sh -c TEXT edgecal FOLDER FILE...

cd -- "$1" || exit
shift
for file; do
    sum=$(sha256sum 2>/dev/null <"$file") && echo "${sum%% *}" || echo -
done 2>/dev/null

#!/bin/sh
# Regenerates everything in a copy of the tree and compares: the tree itself is
# not touched, and what is not committed yet counts too.
set -eu
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
trap 'exit 1' INT TERM
mkdir "$copy/old" "$copy/new"
# Files that were removed and not yet committed are listed too; tar would fail.
git ls-files -z --cached --others --exclude-standard |
	xargs -0 sh -c 'for f; do [ -e "$f" ] && printf "%s\0" "$f"; done; true' sh |
	tar -cf "$copy/tree.tar" --null -T -
tar -xf "$copy/tree.tar" -C "$copy/old"
tar -xf "$copy/tree.tar" -C "$copy/new"
(cd "$copy/new" && ${MAKE:-make} -s update) >"$copy/log" 2>&1 || {
	cat "$copy/log"
	echo "make update failed"
	exit 1
}
rm -rf "$copy/new/.cache" "$copy/new/bin"
if ! diff -ru "$copy/old" "$copy/new"; then
	echo "generated files or goldens are not current: run make update and look at what changed"
	exit 1
fi

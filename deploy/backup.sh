#!/bin/sh
# backup.sh DATA TO: one consistent copy of the catalogue, then every frame it names. Runs beside a served installation.
# The catalogue first: a frame is in the catalogue only once its file is whole, and files are never changed or removed.
set -eu
data=$1 to=$2
umask 077
mkdir -p "$to"
if [ -n "${STEMPILOT_DATABASE_URL:-}" ]; then
  pg_dump --format=custom --file="$to/catalogue.dump.new" "$STEMPILOT_DATABASE_URL"
  mv "$to/catalogue.dump.new" "$to/catalogue.dump"
else
  rm -f "$to/catalogue.sqlite.new"
  "${STEMPILOT_PYTHON:-/opt/stempilot/bin/python}" -c '
import contextlib, sqlite3, sys
with contextlib.closing(sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)) as source:
    source.execute("VACUUM INTO ?", [sys.argv[2]])
' "$data/catalogue.sqlite" "$to/catalogue.sqlite.new"
  mv "$to/catalogue.sqlite.new" "$to/catalogue.sqlite"
fi
for part in experiments uploads stempilot.toml; do
  if [ -e "$data/$part" ]; then cp -a -u "$data/$part" "$to/"; fi
done
sync

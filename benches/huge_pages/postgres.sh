#!/bin/sh -e
# A worker of measure.py: postgres.sh BINARIES DIRECTORY: a backend of PostgreSQL without a server, on data of its own,
# which must not belong to root. `--write` has the statements, `--answer` a word of what the last one prints.
data=$(mktemp -d "$2/data.XXXXXX")
"$1/initdb" -A trust -D "$data" >/dev/null
echo "create table accounts as select aid, aid % 100 as balance from generate_series(1, 10000) aid;
create index on accounts (aid);" | "$1/postgres" --single -j -D "$data" postgres >/dev/null
exec "$1/postgres" --single -D "$data" postgres

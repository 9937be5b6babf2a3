# PostgreSQL: initialises a cluster, runs a server with contributed modules, and
# pgbench.
# packages: postgresql postgresql-contrib
# needs: initdb pg_ctl psql pgbench
# needs-success: [ "$(id -u)" != 0 ] || { id postgres && ls /usr/share/postgresql/*/extension/pg_trgm.control; }
# pinned: /pg_trgm\.so
# pinned: /plpgsql\.so
# results: 20
as_user() {
    if [ "$(id -u)" = 0 ]; then setpriv --reuid postgres --regid postgres --clear-groups -- "$@"; else "$@"; fi
}
data=$WORK/data
mkdir "$data" && chmod 700 "$data"
[ "$(id -u)" != 0 ] || chown postgres "$data"
as_user initdb --no-sync --auth trust --username postgres --pgdata "$data" >initdb.log
as_user pg_ctl --pgdata "$data" --wait --log "$data/log" --options "-c listen_addresses='' -k $data" start >/dev/null
trap 'as_user pg_ctl --pgdata "$data" --mode immediate stop >/dev/null' EXIT
sql() {
    as_user psql --host "$data" --username postgres --no-psqlrc --tuples-only --no-align --quiet --command "$1"
}
for module in pg_trgm hstore citext pgcrypto ltree intarray cube earthdistance fuzzystrmatch unaccent btree_gist btree_gin tablefunc; do
    sql "create extension $module" && echo "$module: created"
done
sql "select similarity('shared object', 'shared objects'), 'a=>1, b=>2'::hstore -> 'b', 'A'::citext = 'a'"
sql "select encode(digest('sopin', 'sha256'), 'hex'), 'a.b.c'::ltree <@ 'a', '{1,2,3}'::int[] && '{3}'::int[], soundex('sopin')"
sql "select earth_distance(ll_to_earth(0, 0), ll_to_earth(0, 1))::int, unaccent('äöü'), levenshtein('cat', 'cart')"
sql "do \$\$ begin raise exception 'x'; exception when others then raise notice 'caught'; end \$\$"
as_user pgbench --host "$data" --username postgres --initialize --scale 1 --quiet postgres 2>/dev/null
as_user pgbench --host "$data" --username postgres --client 4 --jobs 2 --transactions 200 postgres 2>/dev/null |
    grep 'transactions actually processed\|failed'
sql "select count(*), (select count(*) from pgbench_history) from pgbench_accounts"
as_user pg_ctl --pgdata "$data" --wait --mode fast stop >/dev/null && echo stopped
trap - EXIT
grep -c 'was terminated by signal' "$data/log" || true

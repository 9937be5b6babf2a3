# SQLite's shell with a loadable extension.
# packages: sqlite3 libsqlite3-dev gcc
# needs: sqlite3 cc /usr/include/sqlite3ext.h
# pinned: /half\.so
# pinned: /libsqlite3\.so
# results: 3
# quick
cat >half.c <<'C'
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1
static void half(sqlite3_context *context, int count, sqlite3_value **values) {
    (void)count;
    sqlite3_result_double(context, sqlite3_value_double(values[0]) / 2);
}
int sqlite3_half_init(sqlite3 *db, char **error, const sqlite3_api_routines *api) {
    (void)error;
    SQLITE_EXTENSION_INIT2(api);
    return sqlite3_create_function(db, "half", 1, SQLITE_UTF8, 0, half, 0, 0);
}
C
cc -shared -fPIC -o half.so half.c
sqlite3 test.db <<'SQL'
.load ./half
create table t (a real, b text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000) insert into t select i, hex(i) from n;
select sum(half(a)), count(distinct b) from t;
create index i on t (b);
select half(a), b from t where b like '39%' order by a limit 5;
select json_extract('{"a": [1, 2]}', '$.a[1]');
pragma integrity_check;
SQL
